/* cpu_backend.c - the devices "cpu", "cpu64" and "cpu16": plain host memory, no gate. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu16/cpu16.h"
#include "kernels/host.h"

struct cpu_state {
    struct host_state host;
    char about[256];
};

/* "AMD EPYC", from /proc/cpuinfo. */
static void processor(char *out, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(out, size, "processor");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, size, "%s", strchr(line, ':') + 2);
            break;
        }
    if (f) fclose(f);
}

static kr_status open_cpu(void **state, int local_rank, int threads)
{
    struct cpu_state *s = NULL;
    char name[128];

    (void)local_rank;
    TRY(blas_open());
    TRY(mem_alloc(&s, 1, sizeof *s, "device"));
    s->host.threads = threads;
    processor(name, sizeof name);
    snprintf(s->about, sizeof s->about, "%s, %d thread%s, products by %s", name, threads,
             threads == 1 ? "" : "s", blas_describe());
    *state = s;
    return KR_OK;
}

static const char *describe(void *state) { return ((struct cpu_state *)state)->about; }

/* clang-format off */
#define CPU_BACKEND(label, narrow, whole, table)                                 \
    { .name = label, .type = narrow, .wide = whole, .is_host = true,             \
      .ops = &table, .open = open_cpu, .close = mem_free, .describe = describe,                 \
      .alloc = host_alloc, .free = host_free, HOST_PART }
/* clang-format on */

const struct kern_backend kern_cpu_backend =
    CPU_BACKEND("cpu", KERN_F32, KERN_F32, cpu_table);
const struct kern_backend kern_cpu64_backend =
    CPU_BACKEND("cpu64", KERN_F64, KERN_F64, cpu64_table);
const struct kern_backend kern_cpu16_backend =
    CPU_BACKEND("cpu16", KERN_BF16, KERN_F32, cpu16_table);
