/*
 * speed.c - how fast a GPU's operations and training steps are; tables to paste.
 * usage: speed [--small] [--rounds N] [--peer FILE] [--only TABLE] [--model NAME]
 *              [--hopper] [DEVICE]
 *
 *   DEVICE     cuda (default) or cuda32
 *   --small    tiny shapes, to see that the program works
 *   --rounds   blocks of calls of each thing (default 11)
 *   --peer     rows that scripts/gpu-peer.py measured on this card just before
 *   --hopper   with kernels.hopper = on
 *   --only     products, attention, memory or steps
 *   --model    steps of this one only
 *
 * Operands are normal, never zeros: those would flatter, for they take less power.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/device/speed/speed.h"
#include "tests/device/speed/trace.h"

/* Dense bf16 with fp32 sums, TFLOP/s, from the makers' data sheets; the first name that
 * occurs counts. */
static const struct card {
    const char *name;
    double peak;
} cards[] = {
    { "H100 PCIe", 756 }, { "H100 NVL", 835 }, { "H200 NVL", 835 }, { "H100", 989 },
    { "H200", 989 },      { "GH200", 989 },    { "A100", 312 },     { "A800", 312 },
    { "H800", 989 },      { "L40S", 362 },     { "A40", 150 },      { "RTX 4090", 165 },
};

static double peak_of(const char *about)
{
    if (speed.type != KERN_BF16) return 0;
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (strstr(about, cards[i].name)) return cards[i].peak * 1e12;
    return 0;
}

/* Clocks oscillate for some seconds before they settle. */
static kr_status run_warm(const struct job *j)
{
    return kern_linear_fwd(speed.q, j->m[0], j->m[1], j->m[2], kern_none, kern_none);
}

static void warm_up(void)
{
    const int64_t n = speed.small ? 64 : 4096;
    struct job j = { .run = run_warm,
                     .m = { random_mat(1, n, n, speed.type),
                            random_mat(1, n, n, speed.type),
                            random_mat(1, n, n, speed.type) } };
    const double start = clock_now();

    do
        (void)seconds(&j, 10);
    while (!speed.small && clock_now() - start < 3);
    for (int k = 0; k < 3; k++)
        drop(j.m[k]);
}

static void tables(const char *only, const char *device)
{
    if (!only || strcmp(only, "products") == 0) speed_products();
    if (!only || strcmp(only, "attention") == 0) speed_attention();
    if (!only || strcmp(only, "memory") == 0) speed_memory();
    if (!only || strcmp(only, "steps") == 0) speed_steps(device);
}

static int measure(const char *name, const char *only)
{
    char day[32];
    time_t now = time(NULL);
    const char *about;

    if (kern_device_open(&speed.device, name, 0, 1) != KR_OK) return 1;
    must(kern_device_hopper(speed.device, speed.hopper));
    must(kern_queue_open(&speed.q, speed.device, KERN_QUEUE_COMPUTE));
    about = kern_device_describe(speed.device);
    speed.type = kern_device_type(speed.device);
    speed.wide = kern_device_wide(speed.device);
    speed.peak = peak_of(about);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", gmtime(&now));
    printf("# %s, device %s: %s; %s; medians of %d\n", day, name, about,
           kern_device_kernels(speed.device), speed.rounds);
    warm_up();
    tables(only, name);
    kern_queue_close(speed.q);
    kern_device_close(speed.device);
    return 0;
}

static int usage(const char *word)
{
    fprintf(stderr,
            "speed: %s: want --small, --hopper, --rounds N, --peer FILE, --only TABLE, "
            "--model NAME or a device\n",
            word);
    return 2;
}

int main(int argc, char **argv)
{
    const char *name = "cuda", *only = NULL;

    log_setup("speed", -1);
    setvbuf(stdout, NULL, _IOLBF,
            0); /* what is known stands, whatever ends this program */
    trace_init();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--small") == 0)
            speed.small = true;
        else if (strcmp(argv[i], "--hopper") == 0)
            speed.hopper = KERN_HOPPER_ON;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            speed.rounds = atoi(argv[++i]);
        else if (strcmp(argv[i], "--peer") == 0 && i + 1 < argc)
            speed.peer = argv[++i];
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (strcmp(argv[i], "--model") == 0 && i + 1 < argc)
            speed.model = argv[++i];
        else if (argv[i][0] == '-')
            return usage(argv[i]);
        else
            name = argv[i];
    }
    if (speed.rounds < 1 || speed.rounds > MOST_ROUNDS) {
        fprintf(stderr, "speed: --rounds: want 1 to %d\n", MOST_ROUNDS);
        return 2;
    }
    return measure(name, only);
}
