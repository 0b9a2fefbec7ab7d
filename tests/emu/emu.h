/* emu.h - what tests may ask the emulated GPU: what it was told to do, and in which order. */
#ifndef TESTS_EMU_H
#define TESTS_EMU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls of the run time.  EMU_SYNC: the host waited, for a stream, an event or the whole
 * device.  EMU_MEMORY: it took or gave memory, which may make it wait. */
enum emu_call {
    EMU_LAUNCH,
    EMU_HOPPER, /* those of kernels for Hopper, among the launches */
    EMU_COPY,
    EMU_HOST_CALL,
    EMU_RECORD,
    EMU_WAIT,
    EMU_SYNC,
    EMU_MEMORY,
    EMU_CALLS
};

/* Since the process began. */
int64_t emu_count(enum emu_call call);

/* Bytes that were asked for and not given back, now and at most so far: of the device, and
 * of pinned memory. */
struct emu_bytes {
    int64_t now, most;
};
struct emu_bytes emu_device_bytes(void);
int64_t emu_downloaded(void); /* bytes copied to the host, since the process began */
struct emu_bytes emu_pinned_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
