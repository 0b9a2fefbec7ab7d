/* sm90_ptx.cuh - the instructions of Hopper, for the emulated GPU: those of the machine in
 * software. */
#include "tests/sm90/machine.h"
