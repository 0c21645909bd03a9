/* Dispatch by the name the program was started as. */
#include <string.h>
#include <unistd.h>

#include "guest.h"

void rest(void)
{
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	/* A copy: some roles write over their arguments. */
	static char role[64];
	const char *name = argc > 0 ? argv[0] : "";
	const char *slash = strrchr(name, '/');

	strncpy(role, slash ? slash + 1 : name, sizeof(role) - 1);
	if (!strcmp(role, "agent"))
		return agent_main();
	if (!strcmp(role, "launcher"))
		return launcher_main();
#ifdef NESTED
	if (!strcmp(role, "vmm"))
		return vmm_main(argc, argv);
	if (!strcmp(role, "inner-agent"))
		return inner_agent_main();
#endif
	return role_main(role, argc, argv);
}
