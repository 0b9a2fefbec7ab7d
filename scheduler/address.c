/* address.c - one line of text in a file of its own. */
#include "scheduler/address.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"

enum { ADDRESS_MAX = 256 };

static int nibble(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

static bool parse_token(const char *hex, struct wire_token *out)
{
    if (strlen(hex) != 2 * sizeof out->key) return false;
    for (size_t i = 0; i < sizeof out->key; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);

        if (high < 0 || low < 0) return false;
        out->key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static kr_status parse(struct address *out, const char *text, const char *path)
{
    struct address a = { .port = 0 };
    char hex[64];

    if (sscanf(text, "%63s %d %63s", a.host, &a.port, hex) != 3 || a.port < 1 ||
        a.port > 65535 || !parse_token(hex, &a.token))
        return KR_FAIL(KR_ERR_DATA, "%s: no address of a supervisor", path);
    *out = a;
    return KR_OK;
}

kr_status address_read(struct address *out, const char *run)
{
    char path[FS_PATH], *text = NULL;
    struct stat s;
    size_t bytes;
    kr_status st;

    TRY(fs_path(path, "%s/.token", run));
    if (stat(path, &s) != 0) return KR_ERR_IO;
    if (s.st_mode & 077)
        return KR_FAIL(KR_ERR_DATA, "%s: others may read it; chmod 600", path);
    TRY(fs_read_all(path, &text, &bytes, ADDRESS_MAX));
    st = parse(out, text, path);
    mem_free(text);
    return st;
}

kr_status address_write(const struct address *a, const char *run)
{
    char path[FS_PATH], text[ADDRESS_MAX];
    int n = snprintf(text, sizeof text, "%s %d ", a->host, a->port);

    for (size_t i = 0; i < sizeof a->token.key; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%02x", a->token.key[i]);
    n += snprintf(text + n, sizeof text - (size_t)n, "\n");
    TRY(fs_path(path, "%s/.token", run));
    return fs_replace(path, text, (size_t)n);
}

kr_status address_remove(const char *run)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/.token", run));
    return fs_unlink(path);
}

kr_status address_token(struct wire_token *out)
{
    if (getrandom(out->key, sizeof out->key, 0) == sizeof out->key) return KR_OK;
    return KR_FAIL(KR_ERR_IO, "the system gives no random numbers");
}
