/* options.c - a table of settings read as --name value. */
#include "base/options.h"

#include <stdio.h>
#include <string.h>

/* A command line on its way. */
struct line {
    int argc, at; /* at: the argument that is looked at */
    char **argv;
    const struct cfg_field *table;
    void *cfg;
    const char *repeated;
    struct options o;
};

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

static kr_status set_one(struct line *l, const char *name, char *value)
{
    const struct cfg_field *f = find(l->table, name);
    const char *command = l->argv[0];
    char text[1200];

    if (l->repeated && strcmp(name, l->repeated) == 0) {
        if (l->o.set_count == OPTIONS_SETS)
            return KR_FAIL(KR_ERR_ARG, "%s: more than %d --%s", command, OPTIONS_SETS,
                           name);
        l->o.sets[l->o.set_count++] = value;
        return KR_OK;
    }
    if (f && f->type == CFG_STR) return set_text(f, l->cfg, value, command);
    if (snprintf(text, sizeof text, "%s=%s", name, value) >= (int)sizeof text)
        return KR_FAIL(KR_ERR_ARG, "%s: --%s: too long", command, name);
    return cfg_set(l->table, l->cfg, text, command);
}

/* Flags may stand without a value: then they are true. */
static bool stands_alone(const struct line *l, const char *name)
{
    const struct cfg_field *f = find(l->table, name);
    const char *next = l->at + 1 < l->argc ? l->argv[l->at + 1] : "";

    return f && f->type == CFG_BOOL && strcmp(next, "true") != 0 &&
           strcmp(next, "false") != 0;
}

static kr_status read_option(struct line *l)
{
    static char yes[] = "true";
    char *text = l->argv[l->at], *equals = strchr(text, '='), name[64];

    if (strcmp(text, "-h") == 0) text = "--help";
    if (strcmp(text, "-o") == 0) text = "--output";
    if (text[1] != '-')
        return KR_FAIL(KR_ERR_ARG, "%s: %s: unknown option", l->argv[0], text);
    snprintf(name, sizeof name, "%.*s",
             (int)(equals ? equals - text - 2 : (int)sizeof name), text + 2);
    if (strcmp(name, "help") == 0) {
        l->o.help = true;
        return KR_OK;
    }
    if (equals) return set_one(l, name, equals + 1);
    if (stands_alone(l, name)) return set_one(l, name, yes);
    if (!find(l->table, name) && !(l->repeated && strcmp(name, l->repeated) == 0))
        return set_one(l, name, yes); /* to be told that there is none */
    if (l->at + 1 >= l->argc)
        return KR_FAIL(KR_ERR_ARG, "%s: %s: its value is missing", l->argv[0], text);
    return set_one(l, name, l->argv[++l->at]);
}

kr_status options_read_words(int argc, char **argv, const struct cfg_field *table,
                             void *cfg, const char *repeated, struct options *out)
{
    struct line l = { argc, 1, argv, table, cfg, repeated, { .words = argv + 1 } };
    bool all_words = false;

    TRY(cfg_defaults(table, cfg));
    for (; l.at < argc; l.at++) {
        char *text = argv[l.at];

        if (!all_words && strcmp(text, "--") == 0)
            all_words = true;
        else if (!all_words && text[0] == '-' && text[1])
            TRY(read_option(&l));
        else
            l.o.words[l.o.word_count++] = text; /* its place has been read */
    }
    if (l.o.word_count) l.o.path = l.o.words[0];
    *out = l.o;
    return KR_OK;
}

kr_status options_read(int argc, char **argv, const struct cfg_field *table, void *cfg,
                       struct options *out)
{
    struct options o;

    TRY(options_read_words(argc, argv, table, cfg, "set", &o));
    if (o.word_count > 1)
        return KR_FAIL(KR_ERR_ARG, "%s: %s: one path is enough", argv[0], o.words[1]);
    *out = o;
    return KR_OK;
}
