/* In the shim's place while nsrun is tested: shows in the environment that it has been loaded. */
#include <stdlib.h>

__attribute__((constructor)) static void mark(void)
{
    setenv("NSRUN_MARKER", "loaded", 1);
}
