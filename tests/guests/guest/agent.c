/*
 * The agent: states the truth about this system, over a virtio serial port.
 *
 * The host sends one command a line, the agent answers "OK LENGTH\n" or "ERR LENGTH\n" and LENGTH bytes.
 *   procs        one line a process: pid ppid state uid threads name (a worker's without what it works on)
 *   truth        everything, as records (below), once the process list stood still while it was taken
 *   spawn NAME   starts a process of that name, answers its pid
 *   kill PID     ends a process that spawn started
 *   forget       drops every cache the kernel can do without
 *   exit         powers the machine off
 *
 * Records: "F LENGTH PATH\n" and the bytes of a file, "L LENGTH PATH\n" and the target of a link,
 * "E ERRNO PATH\n" for what could not be read. PATH is the path in the guest without the first slash.
 * Nothing is forked to answer `truth` or `procs`, so the processes in the answer are the processes that are there;
 * the agent itself is the only one whose state (R while it reads, S afterwards) differs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

/* ---- a growing buffer that goes back to the system when it is dropped ---- */

struct buffer {
	char *data;
	size_t len, room;
};

static void reserve(struct buffer *b, size_t more)
{
	size_t room = b->room ? b->room : 1 << 16;
	void *at;

	while (room - b->len < more)
		room *= 2;
	if (room == b->room)
		return;
	if (b->data)
		at = mremap(b->data, b->room, room, MREMAP_MAYMOVE);
	else
		at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) {
		dprintf(2, "agent: out of memory\n");
		exit(1);
	}
	b->data = at;
	b->room = room;
}

static void drop(struct buffer *b)
{
	if (b->data)
		munmap(b->data, b->room);
	memset(b, 0, sizeof(*b));
}

static void add(struct buffer *b, const void *bytes, size_t len)
{
	reserve(b, len);
	memcpy(b->data + b->len, bytes, len);
	b->len += len;
}

static void addf(struct buffer *b, const char *format, ...)
{
	char line[1024];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	add(b, line, len < (int)sizeof(line) ? len : (int)sizeof(line) - 1);
}

/* ---- records ---- */

/* Reads a whole file, whatever size it claims to have. Returns 0 or an errno. */
static int slurp(const char *path, struct buffer *into)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	int error = 0;

	if (fd < 0)
		return errno;
	for (;;) {
		ssize_t n;

		reserve(into, 1 << 16);
		n = read(fd, into->data + into->len, into->room - into->len);
		if (n > 0) {
			into->len += n;
			continue;
		}
		/* /dev/kmsg: EPIPE when records were lost, EAGAIN at the end. */
		if (n < 0 && errno == EPIPE)
			continue;
		if (n < 0 && errno != EAGAIN)
			error = errno;
		break;
	}
	close(fd);
	return error;
}

static void record_file(struct buffer *out, const char *path)
{
	static struct buffer scratch;
	int error;

	scratch.len = 0;
	error = slurp(path, &scratch);
	if (error) {
		addf(out, "E %d %s\n", error, path + 1);
	} else {
		addf(out, "F %zu %s\n", scratch.len, path + 1);
		add(out, scratch.data, scratch.len);
	}
	if (scratch.room > 1 << 20)
		drop(&scratch);
}

static void record_link(struct buffer *out, const char *path)
{
	char target[4096];
	ssize_t n = readlink(path, target, sizeof(target));

	if (n < 0) {
		addf(out, "E %d %s\n", errno, path + 1);
		return;
	}
	addf(out, "L %zd %s\n", n, path + 1);
	add(out, target, n);
}

/* Present pages of a process, one line each: virtual and physical address. */
static void record_pages(struct buffer *out, const char *dir)
{
	struct buffer maps = { 0 }, pages = { 0 };
	char path[64];
	char *line;
	int fd;

	snprintf(path, sizeof(path), "%s/pagemap", dir);
	fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "%s/maps", dir);
	if (fd < 0 || slurp(path, &maps) || !maps.len)
		goto out;
	add(&maps, "", 1);
	for (line = strtok(maps.data, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long long start, end;

		if (sscanf(line, "%llx-%llx", &start, &end) != 2 || strstr(line, "[vsyscall]"))
			continue;
		while (start < end) {
			uint64_t entries[512];
			size_t want = (end - start) / 4096 < 512 ? (end - start) / 4096 : 512;
			ssize_t n = pread(fd, entries, want * 8, start / 4096 * 8);
			ssize_t i;

			if (n <= 0)
				break;
			for (i = 0; i < n / 8; i++)
				if (entries[i] >> 63)
					addf(&pages, "%llx %llx\n", start + i * 4096ull,
					     (unsigned long long)(entries[i] & ((1ull << 55) - 1)) * 4096);
			start += n / 8 * 4096ull;
		}
	}
	addf(out, "F %zu %s/pages\n", pages.len, dir + 1);
	add(out, pages.data, pages.len);
out:
	if (fd >= 0)
		close(fd);
	drop(&maps);
	drop(&pages);
}

/* ---- processes ---- */

static int numbers_in(const char *dir, int *ids, int room)
{
	struct dirent *entry;
	int count = 0;
	DIR *d = opendir(dir);

	if (!d)
		return 0;
	while ((entry = readdir(d)) && count < room)
		if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
			ids[count++] = atoi(entry->d_name);
	closedir(d);
	return count;
}

static int pids[4096], tids[4096];

static void list_processes(struct buffer *out)
{
	int count = numbers_in("/proc", pids, 4096);
	int i;

	for (i = 0; i < count; i++) {
		struct buffer status = { 0 };
		char path[64], name[64] = "", state = '?';
		int ppid = -1, uid = -1, threads = -1;
		char *line;

		snprintf(path, sizeof(path), "/proc/%d/status", pids[i]);
		if (slurp(path, &status) || !status.len) {
			drop(&status);
			continue;
		}
		add(&status, "", 1);
		for (line = strtok(status.data, "\n"); line; line = strtok(NULL, "\n")) {
			sscanf(line, "Name:\t%63[^\n]", name);
			sscanf(line, "State:\t%c", &state);
			sscanf(line, "PPid:\t%d", &ppid);
			sscanf(line, "Uid:\t%d", &uid);
			sscanf(line, "Threads:\t%d", &threads);
		}
		/* The kernel prints what a worker works on behind its name (kernel/workqueue.c, wq_worker_comm). */
		if (ppid == 2 && !strncmp(name, "kworker/", 8) && strncmp(name, "kworker/R-", 10))
			name[strcspn(name, "+-")] = 0;
		addf(out, "%d %d %c %d %d %s\n", pids[i], ppid, pids[i] == getpid() ? 'S' : state, uid, threads, name);
		drop(&status);
	}
}

static void record_process(struct buffer *out, int pid)
{
	static const char *files[] = { "stat", "status", "cmdline", "environ", "maps", "comm" };
	char dir[32], path[128];
	int count, i;

	snprintf(dir, sizeof(dir), "/proc/%d", pid);
	for (i = 0; i < (int)(sizeof(files) / sizeof(files[0])); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		record_file(out, path);
	}
	snprintf(path, sizeof(path), "%s/exe", dir);
	record_link(out, path);
	snprintf(path, sizeof(path), "%s/cwd", dir);
	record_link(out, path);
	record_pages(out, dir);
	snprintf(path, sizeof(path), "%s/task", dir);
	count = numbers_in(path, tids, 4096);
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/task/%d/comm", dir, tids[i]);
		record_file(out, path);
		snprintf(path, sizeof(path), "%s/task/%d/stat", dir, tids[i]);
		record_file(out, path);
	}
}

/* Everything, in one buffer; 0 when the process list changed meanwhile. */
static int take_truth(struct buffer *out)
{
	static const char *files[] = {
		"/proc/version", "/proc/cmdline", "/proc/modules", "/proc/iomem", "/proc/stat", "/proc/uptime",
		"/proc/meminfo", "/proc/cpuinfo", "/proc/mounts", "/proc/kallsyms", "/proc/sys/kernel/hostname",
		"/proc/sys/kernel/osrelease", "/sys/kernel/vmcoreinfo", "/sys/kernel/notes", "/sys/kernel/btf/vmlinux",
		"/etc/known.txt", "/dev/kmsg",
	};
	/* Where a machine runs inside of this one. */
	static const char *inner[] = { "/run/inner/truth", INNER_READY, "/run/inner/console" };
	struct buffer before = { 0 }, after = { 0 };
	char self[32];
	int count, i, same;

	for (i = 0; i < (int)(sizeof(files) / sizeof(files[0])); i++)
		record_file(out, files[i]);
	for (i = 0; i < (int)(sizeof(inner) / sizeof(inner[0])); i++)
		if (!access(inner[i], F_OK))
			record_file(out, inner[i]);
	list_processes(&before);
	count = numbers_in("/proc", pids, 4096);
	for (i = 0; i < count; i++)
		record_process(out, pids[i]);
	list_processes(&after);
	same = before.len == after.len && !memcmp(before.data, after.data, before.len);
	addf(out, "F %zu procs\n", after.len);
	add(out, after.data, after.len);
	snprintf(self, sizeof(self), "%d", getpid());
	addf(out, "F %zu agent\n%s", strlen(self), self);
	drop(&before);
	drop(&after);
	return same;
}

static int take_steady_truth(struct buffer *out)
{
	/* An inner machine needs longer than the cast; its monitor ends this one when it takes too long. */
	int inner = !access("/bin/vmm", F_OK);
	int tries;

	for (tries = 0; tries < 600 && access("/run/ready.all", F_OK); tries++)
		usleep(100000);
	for (tries = 0; inner && tries < 2200 && access(INNER_READY, F_OK); tries++)
		usleep(100000);
	for (tries = 0; tries < 30; tries++) {
		drop(out);
		if (take_truth(out))
			return 1;
		usleep(300000);
	}
	drop(out);
	return 0;
}

char *steady_truth(size_t *len)
{
	static struct buffer truth;

	if (!take_steady_truth(&truth))
		return NULL;
	*len = truth.len;
	return truth.data;
}

/* ---- commands ---- */

static int port = -1;

static void send_all(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(port, data, len);

		if (n <= 0) {
			if (n < 0 && errno == EINTR)
				continue;
			usleep(10000);
			continue;
		}
		data += n;
		len -= n;
	}
}

static void answer(const char *status, struct buffer *body)
{
	char head[64];

	send_all(head, snprintf(head, sizeof(head), "%s %zu\n", status, body->len));
	send_all(body->data, body->len);
	drop(body);
}

static void spawn(const char *name, struct buffer *body)
{
	pid_t child = fork();

	if (child == 0) {
		close(port);
		signal(SIGCHLD, SIG_DFL);
		prctl(PR_SET_NAME, name);
		rest();
	}
	usleep(100000);
	addf(body, "%d", child);
}

static void obey(char *command)
{
	struct buffer body = { 0 };

	if (!strcmp(command, "procs")) {
		list_processes(&body);
		answer("OK", &body);
	} else if (!strcmp(command, "truth")) {
		if (take_steady_truth(&body)) {
			answer("OK", &body);
			return;
		}
		addf(&body, "the process list never stood still");
		answer("ERR", &body);
	} else if (!strncmp(command, "spawn ", 6)) {
		spawn(command + 6, &body);
		answer("OK", &body);
	} else if (!strncmp(command, "kill ", 5)) {
		int pid = atoi(command + 5);

		if (pid > 1 && !kill(pid, SIGKILL)) {
			usleep(100000);
			answer("OK", &body);
		} else {
			addf(&body, "kill %d: %s", pid, strerror(errno));
			answer("ERR", &body);
		}
	} else if (!strcmp(command, "forget")) {
		int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

		if (fd < 0 || write(fd, "3", 1) != 1)
			addf(&body, "drop_caches: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		answer(body.len ? "ERR" : "OK", &body);
	} else if (!strcmp(command, "exit")) {
		answer("OK", &body);
		sync();
		reboot(RB_POWER_OFF);
	} else {
		addf(&body, "unknown command \"%s\"; known: procs, truth, spawn NAME, kill PID, forget, exit", command);
		answer("ERR", &body);
	}
}

static void open_port(void)
{
	while (port < 0) {
		DIR *d = opendir("/sys/class/virtio-ports");
		struct dirent *entry;

		while (d && port < 0 && (entry = readdir(d))) {
			char path[300];

			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			port = open(path, O_RDWR | O_CLOEXEC);
		}
		if (d)
			closedir(d);
		if (port < 0)
			usleep(100000);
	}
}

int agent_main(void)
{
	static char line[256];
	size_t len = 0;

	signal(SIGCHLD, SIG_IGN);
	open_port();
	for (;;) {
		struct pollfd wait = { .fd = port, .events = POLLIN };
		char c;

		poll(&wait, 1, -1);
		if (read(port, &c, 1) != 1) {
			usleep(50000);
			continue;
		}
		if (c != '\n') {
			if (len < sizeof(line) - 1)
				line[len++] = c;
			continue;
		}
		line[len] = 0;
		len = 0;
		obey(line);
	}
}
