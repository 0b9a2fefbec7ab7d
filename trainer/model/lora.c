/* lora.c - which sites there are, and their names. */
#include "trainer/model/lora.h"

#include <stdio.h>
#include <string.h>

#include "trainer/model/family.h"

static const struct {
    const char *name;
    enum block_matrix matrix;
} sites[LORA_SITES] = {
    [LORA_QKV] = { "qkv", BLOCK_QKV },    [LORA_Q] = { "q", BLOCK_QKV },
    [LORA_K] = { "k", BLOCK_QKV },        [LORA_V] = { "v", BLOCK_QKV },
    [LORA_OUT] = { "o", BLOCK_OUT },      [LORA_GATE_UP] = { "gate_up", BLOCK_UP },
    [LORA_GATE] = { "gate", BLOCK_UP },   [LORA_UP] = { "up", BLOCK_UP },
    [LORA_DOWN] = { "down", BLOCK_DOWN },
};

const char *lora_name(int site) { return sites[site].name; }
enum block_matrix lora_matrix(int site) { return sites[site].matrix; }

void lora_rows(const struct model_shape *s, int site, int64_t *first, int64_t *rows)
{
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    bool gated = s->family->act == KERN_SWIGLU;
    const int64_t place[LORA_SITES][2] = {
        [LORA_QKV] = { 0, q + 2 * kv }, [LORA_Q] = { 0, q },
        [LORA_K] = { q, kv },           [LORA_V] = { q + kv, kv },
        [LORA_OUT] = { 0, s->dim },     [LORA_GATE_UP] = { 0, 2 * s->ffn },
        [LORA_GATE] = { 0, s->ffn },    [LORA_UP] = { gated ? s->ffn : 0, s->ffn },
        [LORA_DOWN] = { 0, s->dim },
    };

    *first = place[site][0];
    *rows = place[site][1];
}

int64_t lora_inputs(const struct model_shape *s, int site)
{
    const int64_t inputs[BLOCK_MATRICES] = { [BLOCK_QKV] = s->dim,
                                             [BLOCK_OUT] = s->heads * s->head_dim,
                                             [BLOCK_UP] = s->dim,
                                             [BLOCK_DOWN] = s->ffn };

    return inputs[sites[site].matrix];
}

/* ---- names ---------------------------------------------------------------------------- */

unsigned lora_sites(const struct family *f)
{
    unsigned qkv =
        f->one_qkv ? 1u << LORA_QKV : 1u << LORA_Q | 1u << LORA_K | 1u << LORA_V;
    unsigned up = f->one_gate_up ? 1u << LORA_GATE_UP : 1u << LORA_GATE | 1u << LORA_UP;

    if (f->act != KERN_SWIGLU) up = 1u << LORA_UP;
    return qkv | 1u << LORA_OUT | up | 1u << LORA_DOWN;
}

const char *lora_print(unsigned set, char out[LORA_TEXT])
{
    size_t at = 0;

    out[0] = '\0';
    for (int i = 0; i < LORA_SITES; i++)
        if (set >> i & 1)
            at += (size_t)snprintf(out + at, LORA_TEXT - at, "%s%s", at ? "," : "",
                                   sites[i].name);
    return out;
}

/* The site of this name, of `len` letters, among `there`; -1: none. */
static int find_site(unsigned there, const char *name, size_t len)
{
    for (int i = 0; i < LORA_SITES; i++)
        if ((there >> i & 1) && strlen(sites[i].name) == len &&
            memcmp(sites[i].name, name, len) == 0)
            return i;
    return -1;
}

unsigned lora_parse(const struct family *f, const char *text)
{
    unsigned there = lora_sites(f), set = 0;

    if (strcmp(text, "all") == 0) return there;
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ",");
        int site = find_site(there, at, len);

        if (site < 0) return 0;
        set |= 1u << site;
        at += len;
        if (!*at) return set;
    }
}
