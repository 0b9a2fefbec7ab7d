/* utf8.c - one table of leads; second bytes decide what is overlong or a surrogate. */
#include "base/utf8.h"

/* Length by the first byte, and the range of the second; 0: no first byte. */
static int lead(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (c < 0x80) return 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    return c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* How many of the bytes fit a character that begins here; *want is its whole length. */
static int fitting(const char *at, size_t bytes, int *want)
{
    unsigned char low, high;
    int n = 1;

    *want = bytes ? lead((unsigned char)at[0], &low, &high) : 0;
    if (*want == 0) return 0;
    for (; n < *want && (size_t)n < bytes; n++) {
        unsigned char c = (unsigned char)at[n];

        if (c < low || c > high) break;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

int utf8_get(const char *at, size_t bytes, uint32_t *code)
{
    static const uint8_t masks[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t c;
    int want, n;

    if (bytes && (unsigned char)at[0] < 0x80) {
        *code = (uint32_t)at[0];
        return 1;
    }
    n = fitting(at, bytes, &want);
    if (n == 0 || n < want) return 0;
    c = (unsigned char)at[0] & masks[n];
    for (int i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)at[i] & 0x3f);
    *code = c;
    return n;
}

int utf8_get_last(const char *at, size_t bytes, uint32_t *code)
{
    for (int n = 1; n <= 4 && (size_t)n <= bytes; n++) {
        const char *p = at + bytes - n;

        if (((unsigned char)*p & 0xc0) == 0x80) continue;
        return utf8_get(p, (size_t)n, code) == n ? n : 0;
    }
    return 0;
}

int utf8_put(char out[4], uint32_t code)
{
    static const uint8_t marks[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    int n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

    for (int i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(marks[n] | code);
    return n;
}

size_t utf8_unfinished(const char *at, size_t bytes)
{
    for (size_t n = 1; n <= 3 && n <= bytes; n++) {
        int want, fit = fitting(at + bytes - n, n, &want);

        if (((unsigned char)at[bytes - n] & 0xc0) == 0x80) continue;
        return (size_t)fit == n && fit < want ? n : 0;
    }
    return 0;
}

/* Characters one by one; malformed parts as `bad`. */
static size_t next(const char *at, size_t bytes, uint32_t *code, bool *bad)
{
    int want, n = utf8_get(at, bytes, code);

    *bad = n == 0;
    if (n) return (size_t)n;
    n = fitting(at, bytes, &want);
    return n ? (size_t)n : 1;
}

void utf8_repair(struct mem_text *out, const char *at, size_t bytes)
{
    for (size_t i = 0, n; i < bytes; i += n) {
        uint32_t code;
        bool bad;

        n = next(at + i, bytes - i, &code, &bad);
        mem_append(out, bad ? "\xef\xbf\xbd" : at + i, bad ? 3 : n);
    }
}

static void put_json(struct mem_text *out, const char *at, size_t bytes, bool repair)
{
    for (size_t i = 0, n; i < bytes; i += n) {
        uint32_t code;
        bool bad;

        n = next(at + i, bytes - i, &code, &bad);
        if (bad)
            mem_append(out, repair ? "\xef\xbf\xbd" : at + i, repair ? 3 : n);
        else if (code == '"' || code == '\\')
            mem_printf(out, "\\%c", (int)code);
        else if (code == '\n')
            mem_append(out, "\\n", 2);
        else if (code < 32)
            mem_printf(out, "\\u%04x", (unsigned)code);
        else
            mem_append(out, at + i, n);
    }
}

void utf8_json(struct mem_text *out, const char *at, size_t bytes)
{
    put_json(out, at, bytes, true);
}

void utf8_json_kept(struct mem_text *out, const char *at, size_t bytes)
{
    put_json(out, at, bytes, false);
}

bool utf8_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}
