/* The agent of a machine inside the machine: it takes the truth once and hands it to the monitor, which then never runs it again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>

#include "guest.h"

int inner_agent_main(void)
{
	size_t len = 0;
	char *truth = steady_truth(&len);

	if (ioperm(INNER_TRUTH_PORT, 1, 1)) {
		dprintf(2, "inner-agent: ioperm: %s\n", strerror(errno));
		return 1;
	}
	/* A length of zero says that there is no truth to be had. */
	__asm__ volatile("outb %%al, %%dx" : : "a"(0), "d"(INNER_TRUTH_PORT), "D"(truth), "S"(len) : "memory");
	rest();
}
