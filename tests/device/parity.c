/*
 * parity.c - every operation of a device against the reference, on random shapes.
 * usage: parity [--only OPERATION] [--hopper 1] [--shapes N] [--repeats N] [--most N] [--seed N]
 *               [--threads N] [--huge N] [--patience N] [DEVICE...]
 *
 *   DEVICE     default: cuda, cuda32 and, on a Hopper GPU, cuda with its own kernels
 *              where the program has them, else guard and cpu16
 *   --hopper   1: cuda with Hopper's kernels alone, the operations that have some
 *   --shapes   random shapes of each operation (default 5)
 *   --repeats  times each runs; all must give the same bits (2)
 *   --most     largest dimension (150)
 *   --seed     of shapes and values (1)
 *   --threads  of the reference, and to make operands: the same bits on any number (1)
 *   --patience seconds for an operation, then the program ends (0: as long as it takes)
 *   --huge     instead: operations on matrices of N elements (huge.h)
 *
 * A device of bf16 is held against cpu16, the others against cpu: both compute in fp32.
 * The output is TAP and a table: the worst relative error of each operation.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/device/cases.h"
#include "tests/device/huge.h"

static struct {
    int64_t shapes, repeats, most, seed, hopper, threads, huge, patience;
} want = { 5, 2, 150, 1, 0, 1, 0, 0 };

static const char *only; /* operation; NULL: all */
static int cases, bad_cases;

/* What is found out about one operation. */
struct finding {
    double worst;
    char why[192]; /* "": nothing is wrong */
};

static char at_work[192]; /* for the alarm: the line of a device that does not answer */

static void no_answer(int signal)
{
    (void)signal;
    if (write(STDOUT_FILENO, at_work, strlen(at_work)) < 0) _exit(97);
    _exit(98);
}

static bool run_side(struct lab *l, const struct lab_case *c, int side, struct finding *f)
{
    kr_status st;

    lab_send(l, side);
    if (want.patience && side == 0) {
        snprintf(at_work, sizeof at_work, "not ok - %s %s  # no answer in %lld s\n",
                 c->name, l->shape, (long long)want.patience);
        alarm((unsigned)want.patience);
    }
    st = c->call(l, side);
    if (st == KR_OK) st = kern_queue_sync(l->side[side].q);
    alarm(0);
    if (st != KR_OK)
        snprintf(f->why, sizeof f->why, "%s: %s", l->shape, kr_status_text(st));
    else
        lab_fetch(l, side);
    return st == KR_OK;
}

static bool repeat(struct lab *l, const struct lab_case *c, struct finding *f)
{
    unsigned char *first[LAB_TENSORS] = { 0 };
    bool same = true;

    for (int i = 0; i < l->count; i++)
        if (mem_alloc(&first[i], l->t[i].bytes, 1, "first result") == KR_OK)
            memcpy(first[i], l->t[i].result[0], l->t[i].bytes);
    for (int64_t n = 1; n < want.repeats && same; n++) {
        if (!run_side(l, c, 0, f)) break;
        for (int i = 0; i < l->count; i++)
            same = same && lab_same_bits(l, i, first[i]);
    }
    if (!same) snprintf(f->why, sizeof f->why, "%s: other bits when repeated", l->shape);
    for (int i = 0; i < l->count; i++)
        mem_free(first[i]);
    return same && !f->why[0];
}

static bool one_shape(struct lab *l, const struct lab_case *c, double tol,
                      struct finding *f)
{
    double error;

    c->make(l);
    tol += l->slack;
    if (!run_side(l, c, 1, f) || !run_side(l, c, 0, f)) return false;
    error = lab_error(l);
    if (!(error <= f->worst)) f->worst = error;
    if (!(error <= tol))
        snprintf(f->why, sizeof f->why, "%s: %s", l->shape,
                 isnan(error)   ? "not every element was written"
                 : isinf(error) ? "written outside the box"
                                : "too far off");
    if (!(error <= tol)) lab_explain(l, 8 * tol);
    return error <= tol && repeat(l, c, f);
}

static void one_case(struct lab *l, const struct lab_case *c, int number)
{
    double tol = lab_type(l) == KERN_BF16 ? c->tol16 : c->tol32;
    struct finding f = { 0 };
    int64_t n = 0;

    for (bool ok = true; n < want.shapes && ok; n++) {
        l->seed = (uint64_t)(want.seed * 1000003 + number * 1009 + n);
        l->drawn = 0;
        l->ragged = lab_draw(l, 3) == 0;
        ok = one_shape(l, c, tol, &f);
        lab_clear(l);
    }
    cases++;
    bad_cases += f.why[0] != '\0';
    printf("%s %d - %-8s %-14s %3lld shapes x %3lld  worst %8.1e of %8.1e%s%s\n",
           f.why[0] ? "not ok" : "ok", cases, kern_device_name(l->side[0].device),
           c->name, (long long)n, (long long)want.repeats, f.worst, tol,
           f.why[0] ? "  # " : "", f.why);
    fflush(stdout);
}

static kr_status open_side(struct lab_side *s, const char *name, enum kern_hopper when)
{
    TRY(kern_device_open(&s->device, name, 0, (int)want.threads));
    TRY(kern_device_hopper(s->device, when));
    return kern_queue_open(&s->q, s->device, KERN_QUEUE_COMPUTE);
}

static void close_side(struct lab_side *s)
{
    kern_queue_close(s->q);
    kern_device_close(s->device);
}

/* Do the device's kernels have those for Hopper among them? */
static bool has_hopper(const struct kern_device *d)
{
    const char *kernels = kern_device_kernels(d);

    return kernels && strstr(kernels, "Hopper");
}

static kr_status one_device(const char *name, enum kern_hopper when)
{
    bool all = when == KERN_HOPPER_OFF;
    struct lab l = { .most = want.most, .threads = (int)want.threads };
    kr_status st;

    TRY_OR(st, open_side(&l.side[0], name, when), done);
    if (!all && !has_hopper(l.side[0].device)) goto done;
    TRY_OR(st,
           open_side(&l.side[1], lab_type(&l) == KERN_BF16 ? "cpu16" : "cpu",
                     KERN_HOPPER_OFF),
           done);
    printf("# %s: %s%s\n", name, kern_device_describe(l.side[0].device),
           all ? "" : "; its own kernels");
    fflush(stdout);
    if (want.huge) {
        bad_cases += huge_check(&l.side[0], want.huge, !all, &cases);
        goto done;
    }
    for (int i = 0; lab_cases[i].name; i++)
        if ((all || lab_cases[i].hopper) &&
            (!only || strcmp(only, lab_cases[i].name) == 0))
            one_case(&l, &lab_cases[i], i);
done:
    close_side(&l.side[1]);
    close_side(&l.side[0]);
    return st;
}

static bool option(const char *name, const char *value)
{
    const struct {
        const char *name;
        int64_t *at;
    } options[] = { { "--shapes", &want.shapes }, { "--repeats", &want.repeats },
                    { "--most", &want.most },     { "--seed", &want.seed },
                    { "--hopper", &want.hopper }, { "--threads", &want.threads },
                    { "--huge", &want.huge },     { "--patience", &want.patience } };

    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strcmp(options[i].name, name) != 0 || !value) continue;
        *options[i].at = atoll(value);
        return *options[i].at > 0;
    }
    if (strcmp(name, "--only") == 0) return (only = value) != NULL;
    fprintf(stderr,
            "parity: %s: want --only and an operation, or --shapes, --repeats, --most, "
            "--seed, --hopper, --threads, --huge, --patience and a number\n",
            name);
    return false;
}

static kr_status usual_devices(void)
{
    bool gpu = strcmp(kern_device_default(), "cuda") == 0;

    if (want.hopper) return one_device("cuda", KERN_HOPPER_ON);
    TRY(one_device(gpu ? "cuda" : "cpu16", KERN_HOPPER_OFF));
    TRY(one_device(gpu ? "cuda32" : "guard", KERN_HOPPER_OFF));
    return gpu ? one_device("cuda", KERN_HOPPER_AUTO) : KR_OK;
}

int main(int argc, char **argv)
{
    int i = 1;

    log_setup("parity", -1);
    signal(SIGALRM, no_answer);
    for (; i < argc && argv[i][0] == '-'; i += 2)
        if (!option(argv[i], argv[i + 1])) return 2;
    if (i >= argc && usual_devices() != KR_OK) return 1;
    for (; i < argc; i++)
        if (one_device(argv[i], KERN_HOPPER_OFF) != KR_OK) return 1;
    printf("1..%d\n", cases);
    return bad_cases > 0;
}
