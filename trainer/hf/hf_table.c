/* hf_table.c - what became of every tensor, one line for each kind of them. */
#include "trainer/hf/hf_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

const char *hf_shape_text(const struct hf_entry *e, char out[HF_SHAPE_TEXT])
{
    if (e->dims == 2)
        snprintf(out, HF_SHAPE_TEXT, "%" PRId64 " x %" PRId64, e->shape[0], e->shape[1]);
    else
        snprintf(out, HF_SHAPE_TEXT, "%" PRId64, e->shape[0]);
    return out;
}

/* A name of the tables, with '*' for the block. */
static void put_starred(struct mem_text *t, const char *name)
{
    const char *hole = strstr(name, "%d");

    if (hole)
        mem_printf(t, "%.*s*%s", (int)(hole - name), name, hole + 2);
    else
        mem_printf(t, "%s", name);
}

static void print_columns(const char *tensor, const char *times, const char *parameter,
                          const char *shape, const char *dtype, const char *layout)
{
    printf("%-56s %-6s %-34s %-15s %-5s%s%s\n", tensor, times, parameter, shape, dtype,
           *layout ? " " : "", layout);
}

/* `count` tensors of one row of the family's table, from number `first` on. */
static void print_row(const struct hf_plan *plan, const struct st_folder *stored,
                      const char *prefix, int32_t first, int32_t count)
{
    static const char *const parts[] = { "", " (q)", " (k)", " (v)", " (gate)", " (up)" };
    static const char *const layouts[] = { "", "(in, out)", "q, k, v by head" };
    const struct hf_entry *e = &plan->list[first];
    const struct st_file *file;
    const struct st_tensor *t = st_folder_find(stored, e->name, &file);
    struct mem_text theirs = { 0 }, ours = { 0 };
    char shape[HF_SHAPE_TEXT], times[16] = "";

    if (!t) return; /* a copy that is not there */
    if (strstr(e->row->theirs, "%d")) snprintf(times, sizeof times, "x %d", count);
    if (!e->row->bare) mem_printf(&theirs, "%s", prefix);
    put_starred(&theirs, e->row->theirs);
    put_starred(&ours, e->copy ? "embed.token (a copy)" : e->row->ours);
    mem_printf(&ours, "%s", e->copy ? "" : parts[e->row->part]);
    if (!theirs.failed && !ours.failed)
        print_columns(theirs.at, times, ours.at, hf_shape_text(e, shape),
                      st_type_name(t->type), layouts[e->row->layout]);
    mem_text_free(&theirs);
    mem_text_free(&ours);
}

/* Tensors that were not taken. */
static int32_t count_buffers(const struct hf_plan *plan, const struct st_folder *stored)
{
    int32_t buffers = 0;

    for (int32_t f = 0; f < stored->count; f++)
        for (int32_t i = 0; i < stored->files[f].header.count; i++)
            buffers += !hf_plan_find(plan, stored->files[f].header.list[i].name);
    return buffers;
}

void hf_table_print(const struct hf_plan *plan, const struct st_folder *stored,
                    const char *prefix)
{
    int32_t end, buffers = count_buffers(plan, stored);

    print_columns("tensor", "", "parameter", "shape", "dtype", "layout");
    for (int32_t i = 0; i < plan->count; i = end) {
        for (end = i; end < plan->count && plan->list[end].row == plan->list[i].row;)
            end++;
        print_row(plan, stored, prefix, i, end - i);
    }
    if (buffers) printf("%d masks and frequencies were ignored\n", buffers);
}
