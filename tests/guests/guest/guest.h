/* The guest's own program: one static binary, one hard link per role, the role is the name it was started as. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>

/* States the truth about this system to the host and starts processes on demand. */
int agent_main(void);

/*
 * Waits until the cast stands and takes the truth: its bytes, or NULL when the process list never stood still.
 * The buffer is never freed by anyone.
 */
char *steady_truth(size_t *len);

/* Runs an inner machine in a process of this one (vmm.c), and the agent inside of it (inner.c). */
int vmm_main(int argc, char **argv);
int inner_agent_main(void);

/* A write to this port, of anything, hands the truth to the monitor: its address in rdi, its length in rsi. */
#define INNER_TRUTH_PORT 0x700
/* The monitor makes this file last of all. */
#define INNER_READY "/run/inner/machine"

/* Starts the cast and stays its parent. */
int launcher_main(void);

/* One role of the cast: a process with something a process list or a memory map can get wrong. */
int role_main(const char *role, int argc, char **argv);

/* Sleeps for good; signals do not end it. */
void rest(void) __attribute__((noreturn));

#endif
