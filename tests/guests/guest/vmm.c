/*
 * A machine inside the machine: a monitor for /dev/kvm, as small as one can be that boots a packaged kernel.
 *
 * The inner machine's RAM is one mapping of this process, guest-physical 0 at its start: what every such monitor does.
 * It has one CPU, the interrupt controllers and the timer that KVM itself plays, and a serial line that only speaks.
 * Once its agent has handed out its truth, the CPU is never run again: the truth stays true.
 *
 * /run/inner/truth     what the inner agent handed out, in the format of agent.c
 * /run/inner/machine   where the RAM lies, and the registers at the end, "name hexadecimal" each
 * /run/inner/console   what the kernel said
 *
 * Sources: Linux Documentation/virt/kvm/api.rst; Documentation/arch/x86/boot.rst (32-bit protocol); 16550 for the line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

#define PAGE 4096ul

#define BOOT_PARAMS 0x10000ul
#define COMMAND_LINE 0x20000ul
#define KERNEL 0x100000ul
/* End of the memory below 640 KiB that a PC's firmware leaves. */
#define LOW_END 0x9f000ul
/* An inner machine that has no truth by then has gone astray. */
#define SECONDS 180
#define NUDGES_PER_SECOND 20

static uint8_t *ram;
static uint64_t ram_len;
static int kvm, machine, cpu;
static struct kvm_run *run;

/* The outer machine ends with the inner one: who waits for it notices at once. */
static void __attribute__((noreturn)) end(const char *why)
{
	struct kvm_regs general = { 0 };
	char words[4096];
	ssize_t n;
	int console = open("/run/inner/console", O_RDONLY);

	/* What the inner kernel said last, into the outer machine's console. */
	if (lseek(console, -(off_t)sizeof(words), SEEK_END) < 0)
		lseek(console, 0, SEEK_SET);
	n = read(console, words, sizeof(words));
	ioctl(cpu, KVM_GET_REGS, &general);
	dprintf(2, "%.*s\nvmm: %s (rip %llx)\n", n > 0 ? (int)n : 0, words, why, general.rip);
	sleep(1);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void die(const char *what)
{
	char why[256];

	snprintf(why, sizeof(why), "%s: %s", what, strerror(errno));
	end(why);
}

static volatile sig_atomic_t nudges;

static void count_nudge(int signal)
{
	(void)signal;
	nudges++;
}

static int ask(int fd, unsigned long request, unsigned long argument, const char *what)
{
	int answer = ioctl(fd, request, argument);

	if (answer < 0)
		die(what);
	return answer;
}

/* ---- loading ---- */

static int open_sized(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat))
		die(path);
	*len = stat.st_size;
	return fd;
}

/* Reads `len` bytes at `offset` to guest-physical `to`. */
static void load(int fd, size_t offset, size_t len, uint64_t to, const char *path)
{
	errno = EFBIG;
	if (to > ram_len || len > ram_len - to)
		die(path);
	while (len) {
		ssize_t n = pread(fd, ram + to, len, offset);

		if (n <= 0)
			die(path);
		offset += n;
		to += n;
		len -= n;
	}
}

static void put32(uint64_t at, uint32_t value)
{
	memcpy(ram + at, &value, sizeof(value));
}

static void put_e820(int index, uint64_t from, uint64_t to)
{
	uint8_t *entry = ram + BOOT_PARAMS + 0x2d0 + index * 20;
	uint64_t len = to - from;
	uint32_t usable = 1;

	memcpy(entry, &from, 8);
	memcpy(entry + 8, &len, 8);
	memcpy(entry + 16, &usable, 4);
	ram[BOOT_PARAMS + 0x1e8] = index + 1;
}

/* Puts kernel, initramfs and parameters where the boot protocol wants them. */
static void load_kernel(void)
{
	uint8_t *params = ram + BOOT_PARAMS;
	uint8_t head[0x300];
	size_t len, setup, initrd_at;
	int fd = open_sized("/inner/vmlinuz", &len);

	if (pread(fd, head, sizeof(head), 0) != sizeof(head) || memcmp(head + 0x202, "HdrS", 4)) {
		errno = ENOEXEC;
		die("/inner/vmlinuz");
	}
	setup = ((head[0x1f1] ? head[0x1f1] : 4) + 1) * 512;
	memcpy(params + 0x1f1, head + 0x1f1, 0x202 + head[0x201] - 0x1f1);
	load(fd, setup, len - setup, KERNEL, "/inner/vmlinuz");
	close(fd);

	fd = open_sized("/inner/cmdline", &len);
	load(fd, 0, len, COMMAND_LINE, "/inner/cmdline");
	close(fd);

	fd = open_sized("/inner/initramfs.cpio", &len);
	initrd_at = (ram_len - len) & -PAGE;
	load(fd, 0, len, initrd_at, "/inner/initramfs.cpio");
	close(fd);

	params[0x210] = 0xff;           /* type_of_loader: one without a number */
	params[0x211] |= 1;             /* loadflags: loaded high */
	put32(BOOT_PARAMS + 0x218, initrd_at);
	put32(BOOT_PARAMS + 0x21c, len);
	put32(BOOT_PARAMS + 0x228, COMMAND_LINE);
	put_e820(0, 0, LOW_END);
	put_e820(1, KERNEL, ram_len);
}

/* ---- the machine ---- */

static void make_machine(void)
{
	struct kvm_pit_config timer = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_userspace_memory_region memory = { .memory_size = ram_len };

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	machine = ask(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	ask(machine, KVM_SET_TSS_ADDR, 0xfffbd000, "KVM_SET_TSS_ADDR");
	ask(machine, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
	ask(machine, KVM_CREATE_PIT2, (unsigned long)&timer, "KVM_CREATE_PIT2");

	ram = mmap(NULL, ram_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (ram == MAP_FAILED)
		die("mmap of the RAM");
	/* As other monitors do; it also keeps the mapping from becoming one with a neighbour. */
	if (madvise(ram, ram_len, MADV_DONTFORK))
		die("madvise of the RAM");
	memory.userspace_addr = (uintptr_t)ram;
	ask(machine, KVM_SET_USER_MEMORY_REGION, (unsigned long)&memory, "KVM_SET_USER_MEMORY_REGION");
}

static void flat(struct kvm_segment *segment, int type, int selector)
{
	memset(segment, 0, sizeof(*segment));
	segment->limit = 0xffffffff;
	segment->selector = selector;
	segment->type = type;
	segment->present = segment->db = segment->s = segment->g = 1;
}

/* One CPU at the kernel's 32-bit entry: protected mode, flat segments, no paging. */
static void make_cpu(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} features;
	struct kvm_sregs special;
	struct kvm_regs general = { .rip = KERNEL, .rsi = BOOT_PARAMS, .rflags = 2 };
	int size = ask(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");

	cpu = ask(machine, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	if (run == MAP_FAILED)
		die("mmap of the CPU");
	features.head.nent = 128;
	ask(kvm, KVM_GET_SUPPORTED_CPUID, (unsigned long)&features, "KVM_GET_SUPPORTED_CPUID");
	ask(cpu, KVM_SET_CPUID2, (unsigned long)&features, "KVM_SET_CPUID2");
	ask(cpu, KVM_GET_SREGS, (unsigned long)&special, "KVM_GET_SREGS");
	flat(&special.cs, 11, 0x10);
	flat(&special.ds, 3, 0x18);
	special.es = special.fs = special.gs = special.ss = special.ds;
	special.cr0 |= 1;
	ask(cpu, KVM_SET_SREGS, (unsigned long)&special, "KVM_SET_SREGS");
	ask(cpu, KVM_SET_REGS, (unsigned long)&general, "KVM_SET_REGS");
}

/* ---- devices ---- */

/* COM1: registers that keep what is written, a transmitter that is always empty, no interrupts. */
static void serial_line(int console, int out, int number, uint8_t *data)
{
	static uint8_t kept[8];
	int divisor = kept[3] & 0x80;

	if (out) {
		kept[number] = *data;
		if (number == 0 && !divisor && write(console, data, 1) != 1)
			die("/run/inner/console");
		return;
	}
	switch (number) {
	case 0: *data = divisor ? kept[0] : 0; break;
	case 2: *data = 0x01; break;    /* no interrupt pending, no FIFO */
	case 5: *data = 0x60; break;    /* transmitter empty */
	case 6: *data = 0xb0; break;    /* carrier, ready, clear to send */
	default: *data = kept[number];
	}
}

/* ---- the end ---- */

static void save_truth(struct kvm_regs general)
{
	uint64_t from = general.rdi, len = general.rsi;
	int fd = open("/run/inner/truth", O_CREAT | O_TRUNC | O_WRONLY, 0644);

	if (fd < 0)
		die("/run/inner/truth");
	/* The monitor asks as a supervisor, and the page is a user's: SMAP would hide it but for this flag. */
	general.rflags |= 1 << 18;
	ask(cpu, KVM_SET_REGS, (unsigned long)&general, "KVM_SET_REGS");
	while (len) {
		struct kvm_translation page = { .linear_address = from };
		uint64_t part = PAGE - from % PAGE;

		part = part < len ? part : len;
		ask(cpu, KVM_TRANSLATE, (unsigned long)&page, "KVM_TRANSLATE");
		errno = EFAULT;
		if (!page.valid || page.physical_address > ram_len - part ||
		    write(fd, ram + page.physical_address, part) != (ssize_t)part)
			die("the inner agent's truth");
		from += part;
		len -= part;
	}
	close(fd);
	general.rflags &= ~(1 << 18);
	ask(cpu, KVM_SET_REGS, (unsigned long)&general, "KVM_SET_REGS");
}

static void save_machine(void)
{
	int fd = open("/run/inner/machine.part", O_CREAT | O_TRUNC | O_WRONLY, 0644);
	struct kvm_sregs special;

	if (fd < 0)
		die("/run/inner/machine.part");
	ask(cpu, KVM_GET_SREGS, (unsigned long)&special, "KVM_GET_SREGS");
	dprintf(fd, "pid %x\nphys 0\nvirt %lx\nlen %lx\n", getpid(), (unsigned long)(uintptr_t)ram,
		(unsigned long)ram_len);
	dprintf(fd, "cr0 %llx\ncr3 %llx\ncr4 %llx\nefer %llx\n", special.cr0, special.cr3, special.cr4, special.efer);
	close(fd);
	if (rename("/run/inner/machine.part", INNER_READY))
		die(INNER_READY);
}

/* Answers one access; nonzero when the truth was handed out. */
static int io(int console)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	struct kvm_regs general;
	unsigned i;

	for (i = 0; i < run->io.count; i++, data += run->io.size) {
		int out = run->io.direction == KVM_EXIT_IO_OUT;

		if (run->io.port >= 0x3f8 && run->io.port < 0x400) {
			serial_line(console, out, run->io.port - 0x3f8, data);
		} else if (out && run->io.port == INNER_TRUTH_PORT) {
			ask(cpu, KVM_GET_REGS, (unsigned long)&general, "KVM_GET_REGS");
			if (!general.rsi)
				end("the inner machine's process list never stood still");
			save_truth(general);
			return 1;
		} else if (out && run->io.port == 0x64 && *data == 0xfe) {
			end("the inner machine wants to start again");
		} else if (!out && run->io.port >= 0x60 && run->io.port <= 0x64) {
			/* A keyboard controller that has nothing to say; its absence makes some kernels wait. */
			memset(data, 0, run->io.size);
		} else if (!out) {
			memset(data, 0xff, run->io.size);
		}
	}
	return 0;
}

/*
 * Lets KVM look for interrupts. A tick of the timer that comes while the local APIC does not take it wakes nobody later on
 * (Linux arch/x86/kvm/i8259.c, pic_unlock: the line stays up, so there is no edge), and a kernel that spins until the next tick, as
 * one does that boots, never leaves the CPU. To set the pending events, to what they are, asks for the look.
 */
static void nudge(void)
{
	struct kvm_vcpu_events events;

	if (nudges > SECONDS * NUDGES_PER_SECOND)
		end("the inner machine has no truth yet, and is given up");
	ask(cpu, KVM_GET_VCPU_EVENTS, (unsigned long)&events, "KVM_GET_VCPU_EVENTS");
	ask(cpu, KVM_SET_VCPU_EVENTS, (unsigned long)&events, "KVM_SET_VCPU_EVENTS");
}

static void set_nudges(int per_second)
{
	struct itimerval every = { .it_interval = { .tv_usec = per_second ? 1000000 / per_second : 0 } };

	every.it_value = every.it_interval;
	setitimer(ITIMER_REAL, &every, NULL);
}

int vmm_main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = count_nudge };
	int console;

	ram_len = argc == 2 ? strtoul(argv[1], NULL, 10) << 20 : 0;
	if (!ram_len)
		end("usage: vmm MIB");
	mkdir("/run/inner", 0755);
	console = open("/run/inner/console", O_CREAT | O_TRUNC | O_WRONLY, 0644);
	make_machine();
	load_kernel();
	make_cpu();
	/* From here on only the RAM holds what the inner machine was made of. */
	unlink("/inner/vmlinuz");
	unlink("/inner/initramfs.cpio");
	/* No SA_RESTART: the signal is to end KVM_RUN. */
	sigaction(SIGALRM, &action, NULL);
	set_nudges(NUDGES_PER_SECOND);
	for (;;) {
		if (ioctl(cpu, KVM_RUN, 0) < 0) {
			if (errno != EINTR && errno != EAGAIN)
				die("KVM_RUN");
			nudge();
			continue;
		}
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (!io(console))
				break;
			set_nudges(0);
			save_machine();
			rest();
		case KVM_EXIT_MMIO:
			if (!run->mmio.is_write)
				memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
			break;
		case KVM_EXIT_SHUTDOWN:
			end("the inner machine shut down");
		default:
			dprintf(2, "vmm: exit reason %u\n", run->exit_reason);
			end("the inner machine did what its monitor does not know");
		}
	}
}
