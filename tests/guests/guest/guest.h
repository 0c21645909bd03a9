/* The guest's own program: one static binary, one hard link per role, the role is the name it was started as. */
#ifndef GUEST_H
#define GUEST_H

/* States the truth about this system to the host and starts processes on demand. */
int agent_main(void);

/* Starts the cast and stays its parent. */
int launcher_main(void);

/* One role of the cast: a process with something a process list or a memory map can get wrong. */
int role_main(const char *role, int argc, char **argv);

/* Sleeps for good; signals do not end it. */
void rest(void) __attribute__((noreturn));

#endif
