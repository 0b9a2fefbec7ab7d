/* The guard device: whoever touches device memory outside a kernel dies, and memory that
 * nobody has written is not a number. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "tests/check.h"

enum { N = 6 };
static struct kern_device *device;
static struct kern_queue *q;

static float *array(void)
{
    void *at = NULL;

    CHECK_I64(kern_alloc(device, &at, N * sizeof(float), "a test's array"), ==, KR_OK);
    return at;
}

static struct kern_mat row(float *at) { return kern_mat(at, 1, N, KERN_F32); }

/* The signal that a touch of `at` ends a process with; 0: it survived. */
static int touching(float *at, bool write)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would only report */
        signal(SIGBUS, SIG_DFL);
        if (write) *(volatile float *)at = 1;
        _exit(*(volatile float *)at == 12345);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void memory_cannot_be_touched_outside_a_kernel(void)
{
    float *a = array();

    CHECK_I64(touching(a, false), ==, SIGSEGV);
    CHECK_I64(touching(a, true), ==, SIGSEGV);
    CHECK_I64(kern_fill(q, row(a), 3), ==, KR_OK);
    CHECK_I64(kern_queue_sync(q), ==, KR_OK);
    CHECK_I64(touching(a, false), ==, SIGSEGV); /* closed again after the kernel */
}

static void fresh_memory_is_not_a_number(void)
{
    float *a = array(), host[N] = { 0 };

    CHECK_I64(kern_download(q, host, a, sizeof host), ==, KR_OK);
    CHECK_I64(kern_queue_sync(q), ==, KR_OK);
    for (int i = 0; i < N; i++)
        CHECK(isnan(host[i]));
}

static void kernels_and_copies_reach_it(void)
{
    float *a = array(), *b = array(), host[N] = { 1, 2, 3, 4, 5, 6 }, back[N] = { 0 };

    CHECK_I64(kern_upload(q, a, host, sizeof host), ==, KR_OK);
    CHECK_I64(kern_fill(q, row(b), 10), ==, KR_OK);
    CHECK_I64(kern_add(q, row(b), row(b), row(a)), ==, KR_OK);
    CHECK_I64(kern_download(q, back, b, sizeof back), ==, KR_OK);
    CHECK_I64(kern_queue_sync(q), ==, KR_OK);
    for (int i = 0; i < N; i++)
        CHECK_NEAR(back[i], 11 + i, 0);
}

struct doubling {
    float *at;
};

static kr_status double_it(void *arg)
{
    struct doubling *d = arg;

    for (int i = 0; i < N; i++)
        d->at[i] *= 2;
    return KR_OK;
}

/* This is how messages reach device memory of the host. */
static void host_calls_of_a_queue_reach_it(void)
{
    float *a = array(), back[N] = { 0 };
    struct doubling d = { a };

    CHECK_I64(kern_fill(q, row(a), 4), ==, KR_OK);
    CHECK_I64(kern_queue_call(q, double_it, &d, sizeof d), ==, KR_OK);
    CHECK_I64(kern_download(q, back, a, sizeof back), ==, KR_OK);
    CHECK_I64(kern_queue_sync(q), ==, KR_OK);
    CHECK_NEAR(back[N - 1], 8, 0);
}

static void freed_memory_is_not_handed_out_again(void)
{
    float *a = array(), *b;

    kern_free(device, a);
    b = array();
    CHECK(a != b);
    CHECK_I64(touching(a, false), ==, SIGSEGV);
}

int main(void)
{
    if (kern_device_open(&device, "guard", 0, 1) != KR_OK ||
        kern_queue_open(&q, device, KERN_QUEUE_COMPUTE) != KR_OK)
        return 1;
    RUN(memory_cannot_be_touched_outside_a_kernel);
    RUN(fresh_memory_is_not_a_number);
    RUN(kernels_and_copies_reach_it);
    RUN(host_calls_of_a_queue_reach_it);
    RUN(freed_memory_is_not_handed_out_again);
    kern_queue_close(q);
    kern_device_close(device);
    return check_done();
}
