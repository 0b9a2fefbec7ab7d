/* options.c - a table of settings read as --name value. */
#include "trainer/run/options.h"

#include <stdio.h>
#include <string.h>

static const struct cfg_field *find(const struct cfg_field *table, const char *name)
{
    while (table->name && strcmp(table->name, name) != 0)
        table++;
    return table->name ? table : NULL;
}

/* A text of an option may hold what a settings file cannot keep: line ends, say. */
static kr_status set_text(const struct cfg_field *f, void *cfg, const char *value,
                          const char *command)
{
    if (strlen(value) >= f->size)
        return KR_FAIL(KR_ERR_ARG, "%s: --%s: longer than %zu bytes", command, f->name,
                       f->size - 1);
    strcpy((char *)cfg + f->offset, value);
    return KR_OK;
}

static kr_status set_one(const struct cfg_field *table, void *cfg, const char *name,
                         const char *value, const char *command)
{
    const struct cfg_field *f = find(table, name);
    char text[1200];

    if (f && f->type == CFG_STR) return set_text(f, cfg, value, command);
    if (snprintf(text, sizeof text, "%s=%s", name, value) >= (int)sizeof text)
        return KR_FAIL(KR_ERR_ARG, "%s: --%s: too long", command, name);
    return cfg_set(table, cfg, text, command);
}

/* Flags may stand without a value: then they are true. */
static bool is_flag(const struct cfg_field *table, const char *name)
{
    const struct cfg_field *f = find(table, name);

    return f && f->type == CFG_BOOL;
}

static kr_status read_option(int argc, char **argv, int *i, const struct cfg_field *table,
                             void *cfg, struct options *o)
{
    const char *name = strcmp(argv[*i], "-o") == 0 ? "output" : argv[*i] + 2;

    if (strcmp(name, "help") == 0) {
        o->help = true;
        return KR_OK;
    }
    if (is_flag(table, name) && (*i + 1 >= argc || (strcmp(argv[*i + 1], "true") != 0 &&
                                                    strcmp(argv[*i + 1], "false") != 0)))
        return set_one(table, cfg, name, "true", argv[0]);
    if (*i + 1 >= argc)
        return KR_FAIL(KR_ERR_ARG, "%s: %s: its value is missing", argv[0], argv[*i]);
    ++*i;
    if (strcmp(name, "set") != 0) return set_one(table, cfg, name, argv[*i], argv[0]);
    if (o->set_count == OPTIONS_SETS)
        return KR_FAIL(KR_ERR_ARG, "%s: more than %d --set", argv[0], OPTIONS_SETS);
    o->sets[o->set_count++] = argv[*i];
    return KR_OK;
}

kr_status options_read(int argc, char **argv, const struct cfg_field *table, void *cfg,
                       struct options *out)
{
    struct options o = { 0 };

    TRY(cfg_defaults(table, cfg));
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0)
            o.help = true;
        else if ((strncmp(argv[i], "--", 2) == 0 && argv[i][2]) ||
                 strcmp(argv[i], "-o") == 0)
            TRY(read_option(argc, argv, &i, table, cfg, &o));
        else if (o.path)
            return KR_FAIL(KR_ERR_ARG, "%s: %s: one path is enough", argv[0], argv[i]);
        else
            o.path = argv[i];
    }
    *out = o;
    return KR_OK;
}
