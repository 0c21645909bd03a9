/*
 * The cast: processes whose properties are known and easy to get wrong.
 *
 * worker-pool      uid 1000, gid 1000, six named threads, a secret in the environment, file-backed, anonymous,
 *                  shared, inaccessible and executable mappings
 * family           parent, child, grandchild, each renamed (family-0, family-1, family-2)
 * zombie-parent    has a dead child it never waits for (zombie-child, exit code 42)
 * stopped          has sent SIGSTOP to itself (state T)
 * a-process-with-a-long-name   more than 15 characters, so the kernel's name is cut
 * rewritten        has written another command line over its own
 * emptied          has written zeros over its command line
 * deleted          its executable lies on another mount and was unlinked
 * sleep            busybox, uid 65534, gid 65534
 *
 * The launcher is the parent of all; it writes /run/ready when each has reached its final state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define PAGE 4096ul
#define PATTERN_BYTES (64 * PAGE)

static void mark_ready(const char *role)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/run/ready.%s", role);
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	if (fd >= 0)
		close(fd);
}

static void await_ready(const char *role)
{
	char path[128];
	int tries;

	snprintf(path, sizeof(path), "/run/ready.%s", role);
	for (tries = 0; tries < 3000 && access(path, F_OK); tries++)
		usleep(10000);
	unlink(path);
}

static void die(const char *what)
{
	dprintf(2, "guest: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* ---- worker-pool ---- */

static void *thread_body(void *name)
{
	prctl(PR_SET_NAME, name);
	rest();
}

static void *map(size_t len, int prot, int flags, int fd)
{
	void *at = mmap(NULL, len, prot, flags, fd, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static void worker_pool(void)
{
	static char names[5][16];
	volatile unsigned char sum = 0;
	pthread_attr_t attr;
	pthread_t thread;
	unsigned char *at;
	size_t i;
	int fd;

	/* Reads of a known file: private, read only, each page touched. */
	fd = open("/etc/known.txt", O_RDONLY);
	if (fd < 0)
		die("/etc/known.txt");
	at = map(4 * PAGE, PROT_READ, MAP_PRIVATE, fd);
	for (i = 0; i < 4; i++)
		sum += at[i * PAGE];
	close(fd);

	/* Anonymous memory, 16-byte records that say their own index. */
	at = map(PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (i = 0; i < PATTERN_BYTES / 16; i++) {
		char record[17];

		snprintf(record, sizeof(record), "pattern-%08x", (unsigned)i);
		memcpy(at + i * 16, record, 16);
	}

	/* Shared anonymous and shared file memory, the file on another mount. */
	at = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	memcpy(at, "shared-anonymous", 16);
	fd = open("/tmp/shared.bin", O_RDWR | O_CREAT, 0666);
	if (fd < 0 || ftruncate(fd, 2 * PAGE))
		die("/tmp/shared.bin");
	at = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	memcpy(at, "shared-file-page", 16);
	close(fd);

	/* Permissions nobody expects: none at all, execute and write together, reserved and never touched. */
	map(16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	at = map(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	at[0] = 0xc3;
	at = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	at[0] = 0xc3;
	if (mprotect(at, PAGE, PROT_READ | PROT_EXEC))
		die("mprotect");
	map(1024 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	for (i = 0; i < 5; i++) {
		if (i < 4)
			snprintf(names[i], sizeof(names[i]), "worker-%u", (unsigned)i);
		else
			snprintf(names[i], sizeof(names[i]), "ticker");
		if (pthread_create(&thread, &attr, thread_body, names[i]))
			die("pthread_create");
	}
	usleep(200000);
}

/* ---- command lines ---- */

static void rewrite_command_line(int argc, char **argv, const char *text)
{
	char *start = argv[0];
	char *end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;

	memset(start, 0, end - start);
	if (text && strlen(text) < (size_t)(end - start))
		memcpy(start, text, strlen(text));
}

/* ---- roles ---- */

static void family(void)
{
	int generation;

	for (generation = 0; generation < 3; generation++) {
		char name[16];

		snprintf(name, sizeof(name), "family-%d", generation);
		prctl(PR_SET_NAME, name);
		if (generation == 2)
			break;
		if (fork())
			rest();
	}
	mark_ready("family");
	rest();
}

static void zombie_parent(void)
{
	siginfo_t info;
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_NAME, "zombie-child");
		_exit(42);
	}
	waitid(P_PID, child, &info, WEXITED | WNOWAIT);
}

int role_main(const char *role, int argc, char **argv)
{
	if (!strcmp(role, "worker-pool")) {
		worker_pool();
	} else if (!strcmp(role, "family")) {
		family();
	} else if (!strcmp(role, "zombie-parent")) {
		zombie_parent();
	} else if (!strcmp(role, "rewritten")) {
		rewrite_command_line(argc, argv, "rewritten: serving [idle]");
	} else if (!strcmp(role, "emptied")) {
		rewrite_command_line(argc, argv, NULL);
	} else if (!strcmp(role, "deleted")) {
		unlink("/run/tools/deleted");
	} else if (!strcmp(role, "stopped")) {
		mark_ready(role);
		raise(SIGSTOP);
	}
	mark_ready(role);
	rest();
}

/* ---- launcher ---- */

static pid_t start(const char *path, char *const argv[], char *const env[], unsigned uid)
{
	pid_t child = fork();

	if (child)
		return child;
	if (uid) {
		gid_t groups[2] = { uid, 100 };

		if (setgroups(2, groups) || setgid(uid) || setuid(uid))
			die("setuid");
	}
	execve(path, argv, env);
	die(path);
	return -1;
}

static void copy_file(const char *from, const char *to)
{
	char buffer[4096];
	ssize_t n;
	int in = open(from, O_RDONLY);
	int out = open(to, O_WRONLY | O_CREAT, 0755);

	if (in < 0 || out < 0)
		die(to);
	while ((n = read(in, buffer, sizeof(buffer))) > 0)
		if (write(out, buffer, n) != n)
			die(to);
	close(in);
	close(out);
}

int launcher_main(void)
{
	char *env[] = { "PATH=/bin:/sbin", "LANG=C", NULL };
	char *secret[] = { "PATH=/bin:/sbin", "MEMFLOW_SECRET=correct-horse-battery-staple", "HOME=/home/worker", NULL };
	pid_t stopped;
	int status;

	mkdir("/run/tools", 0755);
	chmod("/run", 0777);
	copy_file("/bin/deleted", "/run/tools/deleted");

	start("/bin/worker-pool", (char *[]){ "worker-pool", "--threads", "5", "an argument with spaces", "", "last", NULL }, secret, 1000);
	await_ready("worker-pool");
	start("/bin/family", (char *[]){ "family", NULL }, env, 0);
	await_ready("family");
	start("/bin/zombie-parent", (char *[]){ "zombie-parent", NULL }, env, 0);
	await_ready("zombie-parent");
	start("/bin/a-process-with-a-long-name", (char *[]){ "/bin/a-process-with-a-long-name", "--quiet", NULL }, env, 1001);
	await_ready("a-process-with-a-long-name");
	start("/bin/rewritten", (char *[]){ "rewritten", "--listen", "0.0.0.0:8080", "--secret=never-shown", NULL }, env, 33);
	await_ready("rewritten");
	start("/bin/emptied", (char *[]){ "emptied", "--all", "of", "this", "goes", NULL }, env, 0);
	await_ready("emptied");
	start("/run/tools/deleted", (char *[]){ "/run/tools/deleted", NULL }, env, 0);
	await_ready("deleted");
	start("/bin/sleep", (char *[]){ "sleep", "1000000", NULL }, env, 65534);
	stopped = start("/bin/stopped", (char *[]){ "stopped", NULL }, env, 0);
	await_ready("stopped");
	waitpid(stopped, &status, WUNTRACED);
	sleep(1);
	mark_ready("all");
	rest();
}
