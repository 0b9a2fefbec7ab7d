/* hf_import_adapter.c - an adapter of PEFT's to a run beside the model it belongs to. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "trainer/hf/hf_adapter.h"
#include "trainer/hf/hf_import_parts.h"
#include "trainer/run/base.h"
#include "trainer/run/init.h"
#include "trainer/run/origin.h"

/* One file, as a folder of tensors. */
static kr_status open_tensors(struct import *m)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/" HF_ADAPTER_MODEL, m->from));
    if (!fs_exists(path)) return KR_FAIL(KR_ERR_ARG, "%s: no such file", path);
    TRY(mem_alloc(&m->stored.files, 1, sizeof *m->stored.files, "list of files"));
    TRY(st_open(&m->stored.files[0], path));
    m->stored.count = 1;
    return KR_OK;
}

/* What the adapter says of itself, and which weights it belongs to. */
static kr_status set_lora(struct import *m)
{
    struct settings *s = &m->set;
    struct hf_adapter a;
    char names[LORA_TEXT];

    TRY(hf_adapter_read(&a, m->from, s->family));
    TRY(open_tensors(m));
    if (a.sites == 0)
        TRY(hf_adapter_sites(&a.sites, s->family, &m->stored.files[0].header,
                             m->stored.files[0].path));
    s->lora_rank = a.rank;
    s->lora_alpha = a.alpha;
    strcpy(s->lora_targets, lora_print(a.sites, names));
    strcpy(s->init, m->args->base);
    return base_pin(s, "");
}

kr_status import_adapter_settings(struct import *m)
{
    struct settings *s = &m->set;

    if (!m->args->base[0])
        return KR_FAIL(
            KR_ERR_ARG,
            "import: %s is an adapter; --base RUN says which model it belongs to",
            m->from);
    if (m->args->context || m->args->rope_theta > 0)
        return KR_FAIL(KR_ERR_ARG,
                       "import: %s is an adapter; %s is a matter of its model", m->from,
                       m->args->context ? "--context" : "--rope-theta");
    TRY(cfg_defaults(settings_table, s));
    TRY(init_settings(m->args->base, "", s));
    import_set_training(s);
    s->lr = 2e-4; /* adapters begin far from where they go */
    s->min_lr = 2e-5;
    for (int i = 0; i < m->options->set_count; i++)
        TRY(cfg_set(settings_table, s, m->options->sets[i], "--set"));
    TRY(set_lora(m));
    TRY(import_check_ranges(m));
    TRY(settings_check(s, 1));
    settings_shape(s, &m->shape);
    return params_build(&m->params, &m->shape);
}

kr_status import_adapter_plan(struct import *m)
{
    return hf_adapter_plan(&m->plan, m->set.family, &m->params, &m->shape);
}

/* The tokenizer of the model, and what it was imported with. */
kr_status import_adapter_rest(const struct import *m)
{
    const char *tokenizer = m->set.tokenizer;
    char path[FS_PATH];

    TRY(fs_path(path, "%s/tokenizer.json", m->out.partial));
    if (tokenizer[0] && strcmp(tokenizer, "byte") != 0 && fs_exists(tokenizer))
        TRY(fs_copy(tokenizer, path));
    return origin_keep(m->args->base, m->out.partial);
}

void import_adapter_print(const struct import *m)
{
    printf("%s: adapters of rank %" PRId64 ", alpha %g, on %s: %d tensors, %" PRId64
           " parameters, beside %s\n",
           m->args->output, m->set.lora_rank, m->set.lora_alpha, m->set.lora_targets,
           m->plan.count, m->params.trained, m->args->base);
}
