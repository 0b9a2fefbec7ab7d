/* handles.h - what the opaque handles of device.h are.  For device.c and kernels.c. */
#ifndef KERN_HANDLES_H
#define KERN_HANDLES_H

struct kern_backend;

struct kern_device {
    const struct kern_backend *back;
    void *state;
};

struct kern_queue {
    struct kern_device *device;
    void *stream;
};

struct kern_event {
    struct kern_device *device;
    void *event;
};

#endif
