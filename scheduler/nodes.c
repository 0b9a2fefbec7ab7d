/* nodes.c - host files, and placing ranks in blocks. */
#include "scheduler/nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *node_state_text(enum node_state state)
{
    static const char *const texts[] = {
#define X(name, text) text,
        NODE_STATE_MAP(X)
#undef X
    };

    return texts[state];
}

/* ---- the table ---------------------------------------------------------------------- */

struct node *nodes_find(const struct nodes *n, const char *name)
{
    for (int32_t i = 0; i < n->count; i++)
        if (strcmp(n->at[i].name, name) == 0) return &n->at[i];
    return NULL;
}

/* A name goes to a shell and to Open MPI, so it may hold nothing else.  No dash in front:
 * ssh would take it as an option. */
static bool is_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_";
    size_t len = strlen(name);

    return len > 0 && len < NODES_NAME && name[0] != '-' && strspn(name, allowed) == len;
}

kr_status nodes_add(struct nodes *n, const char *name, int32_t slots)
{
    struct node *node = nodes_find(n, name);

    if (!is_name(name))
        return KR_FAIL(KR_ERR_ARG, "%s: no name of a host: want letters, digits, . - _",
                       name);
    if (slots < 1 || slots + (node ? node->slots : 0) > NODES_SLOTS_MAX)
        return KR_FAIL(KR_ERR_ARG, "%s: %d slots, want 1 to %d", name,
                       slots + (node ? node->slots : 0), NODES_SLOTS_MAX);
    if (node) {
        node->slots += slots;
        return KR_OK;
    }
    if (n->count == NODES_MAX)
        return KR_FAIL(KR_ERR_ARG, "more than %d hosts", NODES_MAX);
    if (!n->at) TRY(mem_alloc(&n->at, NODES_MAX, sizeof *n->at, "nodes"));
    node = &n->at[n->count++];
    *node = (struct node){ .slots = slots, .place = -1 };
    snprintf(node->name, sizeof node->name, "%s", name);
    return KR_OK;
}

void nodes_free(struct nodes *n)
{
    mem_free(n->at);
    *n = (struct nodes){ 0 };
}

/* ---- host files --------------------------------------------------------------------- */

/* The value of slots= among the words after the name; 1 without it, -1 if it is none. */
static int32_t slots_of(char *words)
{
    int32_t slots = 1;

    for (char *word = strtok(words, " \t\r"); word; word = strtok(NULL, " \t\r")) {
        char *end;
        long value;

        if (strncmp(word, "slots=", 6) != 0) {
            if (strncmp(word, "max_slots=", 10) != 0 &&
                strncmp(word, "max-slots=", 10) != 0)
                return -1;
            continue;
        }
        value = strtol(word + 6, &end, 10);
        if (end == word + 6 || *end || value < 1 || value > NODES_SLOTS_MAX) return -1;
        slots = (int32_t)value;
    }
    return slots;
}

static kr_status parse_line(struct nodes *n, char *line, const char *source, int number)
{
    char *name;
    size_t len;
    int32_t slots;

    line[strcspn(line, "#")] = '\0';
    name = line + strspn(line, " \t\r");
    len = strcspn(name, " \t\r");
    if (len == 0) return KR_OK;
    slots = slots_of(name[len] ? name + len + 1 : name + len);
    name[len] = '\0';
    if (strchr(name, ':'))
        return KR_FAIL(
            KR_ERR_ARG,
            "%s:%d: %s: an IPv6 address; give the host a name, in DNS or /etc/hosts",
            source, number, name);
    if (slots < 0 || nodes_add(n, name, slots) != KR_OK)
        return KR_FAIL(KR_ERR_ARG, "%s:%d: want NAME slots=N, N from 1 to %d", source,
                       number, NODES_SLOTS_MAX);
    return KR_OK;
}

kr_status nodes_parse(struct nodes *out, const char *text, const char *source)
{
    struct nodes n = { 0 };
    kr_status st = KR_OK;
    int number = 0;

    while (*text && st == KR_OK) {
        size_t len = strcspn(text, "\n");
        char line[512];

        number++;
        if (len >= sizeof line)
            st = KR_FAIL(KR_ERR_ARG, "%s:%d: the line is too long", source, number);
        snprintf(line, sizeof line, "%.*s", (int)len, text);
        if (st == KR_OK) st = parse_line(&n, line, source, number);
        text += len + (text[len] == '\n');
    }
    if (st == KR_OK && n.count == 0)
        st = KR_FAIL(KR_ERR_ARG, "%s: names no host", source);
    if (st == KR_OK)
        *out = n;
    else
        nodes_free(&n);
    return st;
}

/* ---- counting ----------------------------------------------------------------------- */

static bool is_up(const struct node *n) { return n->state == NODE_UP; }

int32_t nodes_slots_up(const struct nodes *n)
{
    int32_t slots = 0;

    for (int32_t i = 0; i < n->count; i++)
        slots += is_up(&n->at[i]) ? n->at[i].slots : 0;
    return slots;
}

int32_t nodes_slots(const struct nodes *n)
{
    int32_t slots = 0;

    for (int32_t i = 0; i < n->count; i++)
        slots += n->at[i].state != NODE_GONE ? n->at[i].slots : 0;
    return slots;
}

int32_t nodes_missing(const struct nodes *n)
{
    int32_t count = 0;

    for (int32_t i = 0; i < n->count; i++)
        count += n->at[i].place >= 0 && !is_up(&n->at[i]);
    return count;
}

int32_t nodes_spare(const struct nodes *n)
{
    int32_t count = 0;

    for (int32_t i = 0; i < n->count; i++)
        count += n->at[i].place < 0 && is_up(&n->at[i]);
    return count;
}

/* ---- placing ------------------------------------------------------------------------ */

static struct node *at_place(const struct nodes *n, int32_t place)
{
    for (int32_t i = 0; i < n->count; i++)
        if (n->at[i].place == place) return &n->at[i];
    return NULL;
}

/* The spare to use next: fewest faults, then first in the file. */
static struct node *best_spare(const struct nodes *n)
{
    struct node *best = NULL;

    for (int32_t i = 0; i < n->count; i++) {
        struct node *s = &n->at[i];

        if (s->place < 0 && is_up(s) && (!best || s->faults < best->faults)) best = s;
    }
    return best;
}

static int32_t places(const struct nodes *n)
{
    int32_t last = -1;

    for (int32_t i = 0; i < n->count; i++)
        if (n->at[i].place > last) last = n->at[i].place;
    return last + 1;
}

/* Missing nodes give their places to spares; places that stay empty are closed. */
static void replace_missing(struct nodes *n)
{
    int32_t all = places(n), to = 0;

    for (int32_t place = 0; place < all; place++) {
        struct node *node = at_place(n, place), *spare;

        if (node && !is_up(node)) {
            node->place = -1;
            if ((spare = best_spare(n))) spare->place = place;
            node = spare;
        }
        if (node) node->place = to++;
    }
}

int32_t nodes_place(struct nodes *n, int32_t ranks)
{
    struct node *node;
    int32_t placed = 0;

    replace_missing(n);
    for (int32_t i = 0; i < n->count; i++)
        n->at[i].first = n->at[i].ranks = 0;
    for (int32_t place = 0; placed < ranks; place++) {
        if (!(node = at_place(n, place)) && !(node = best_spare(n))) break;
        node->place = place;
        node->first = placed;
        node->ranks = node->slots < ranks - placed ? node->slots : ranks - placed;
        placed += node->ranks;
    }
    for (int32_t i = 0; i < n->count; i++)
        if (n->at[i].ranks == 0) n->at[i].place = -1;
    return placed;
}

bool nodes_swap_out(struct nodes *n, int32_t node)
{
    struct node *bad = &n->at[node], *spare = best_spare(n);

    if (bad->place < 0 || !spare || spare->faults >= bad->faults) return false;
    spare->place = bad->place;
    bad->place = -1;
    return true;
}

int32_t nodes_active(const struct nodes *n, int32_t *out)
{
    int32_t count = 0;

    for (const struct node *node; (node = at_place(n, count)); count++)
        out[count] = (int32_t)(node - n->at);
    return count;
}

int32_t nodes_of_rank(const struct nodes *n, int32_t rank)
{
    for (int32_t i = 0; i < n->count; i++)
        if (rank >= n->at[i].first && rank < n->at[i].first + n->at[i].ranks) return i;
    return -1;
}
