/* init.c - settings out of a manifest, before MPI starts. */
#include "trainer/run/init.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "checkpoints/manifest.h"
#include "trainer/run/base.h"
#include "trainer/run/speech.h"

/* Copy the settings that describe the model. */
static kr_status take_model(const struct settings *from, struct settings *to,
                            const char *source)
{
    char value[SETTINGS_TEXT + 1], text[2 * SETTINGS_TEXT];

    for (const struct cfg_field *f = settings_table; f->name; f++) {
        if (strncmp(f->name, "model.", 6) != 0) continue;
        snprintf(text, sizeof text, "%s=%s", f->name,
                 cfg_value(f, from, value, sizeof value));
        TRY(cfg_set(settings_table, to, text, source));
    }
    return KR_OK;
}

static kr_status read_theirs(const char *init, struct settings *out)
{
    char folder[FS_PATH];
    struct manifest m = { 0 };
    kr_status st;

    TRY(base_newest(init, folder));
    TRY(manifest_read(&m, folder));
    st = cfg_defaults(settings_table, out);
    if (st == KR_OK) st = cfg_read_text(settings_table, out, m.settings, folder);
    manifest_free(&m);
    if (st != KR_OK || out->lora_rank == 0) return st;
    return KR_FAIL(KR_ERR_ARG,
                   "train.init = %s: it holds adapters and no model; export it, import "
                   "that, and start from there",
                   init);
}

kr_status init_settings(const char *init, const char *run, struct settings *set)
{
    char own[FS_PATH];
    struct settings theirs;
    kr_status st;

    TRY(fs_path(own, "%s/config.ini", run));
    if (fs_exists(own)) {
        TRY(cfg_defaults(settings_table, &theirs));
        TRY(cfg_read_file(settings_table, &theirs, own));
        snprintf(set->tokenizer, sizeof set->tokenizer, "%s", theirs.tokenizer);
        return take_model(&theirs, set, own);
    }
    st = read_theirs(init, &theirs);
    if (st != KR_OK) return st == KR_ERR_MEM ? st : KR_ERR_ARG;
    TRY(take_model(&theirs, set, init));
    TRY(speech_find(&theirs, init));
    strcpy(set->tokenizer, theirs.tokenizer);
    return KR_OK;
}
