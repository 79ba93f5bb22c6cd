// Whether tile instructions (AMX) may be used.

#include <sys/syscall.h>
#include <unistd.h>

// Asks Linux for the tiles (ARCH_REQ_XCOMP_PERM of XTILEDATA), once per process: 1 where it has them.
extern "C" int sourcewise_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
