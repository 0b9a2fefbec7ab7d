/* token_writer.c - a buffer in front of the .bin, the index at the end. */
#include "trainer/data/token_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

enum { INDEX_U16 = 8, INDEX_I32 = 4, BUFFER = 1 << 20 /* bytes */ };

struct token_writer {
    char bin[FS_PATH], idx[FS_PATH], bin_temp[FS_PATH], idx_temp[FS_PATH],
        folder[FS_PATH];
    int fd;
    size_t width; /* bytes of a token */
    uint64_t at;  /* bytes in the .bin */
    char buffer[BUFFER];
    size_t filled;
    struct mem_text lengths; /* of documents, int32 each */
    int64_t documents, tokens, tokens_here;
    bool finished;
};

static kr_status name_files(struct token_writer *w, const char *prefix)
{
    const char *slash = strrchr(prefix, '/');

    TRY(slash ? fs_path(w->folder, "%.*s/", (int)(slash - prefix), prefix)
              : fs_path(w->folder, "."));
    TRY(fs_path(w->bin, "%s.bin", prefix));
    TRY(fs_path(w->idx, "%s.idx", prefix));
    TRY(fs_path(w->bin_temp, "%s.bin.tmp", prefix));
    return fs_path(w->idx_temp, "%s.idx.tmp", prefix);
}

/* What an interrupted command left is taken over, but not what another is writing: two
 * would mix their tokens.  The lock ends with the process. */
static kr_status open_temp(struct token_writer *w)
{
    struct stat ours, there;

    TRY(fs_open(&w->fd, w->bin_temp, O_WRONLY | O_CREAT));
    if ((flock(w->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
        fstat(w->fd, &ours) != 0 || stat(w->bin_temp, &there) != 0 ||
        ours.st_ino != there.st_ino) {
        close(w->fd);
        return KR_FAIL(KR_ERR_ARG, "%s: another command is writing it", w->bin_temp);
    }
    return ftruncate(w->fd, 0) == 0
               ? KR_OK
               : KR_FAIL(KR_ERR_IO, "%s: %s", w->bin_temp, strerror(errno));
}

kr_status token_writer_open(struct token_writer **out, const char *prefix, int64_t vocab,
                            bool replace)
{
    struct token_writer *w = NULL;
    kr_status st;

    TRY(mem_alloc(&w, 1, sizeof *w, "output"));
    w->fd = -1;
    w->width = vocab <= UINT16_MAX + 1 ? 2 : 4;
    st = name_files(w, prefix);
    if (st == KR_OK && !replace && (fs_exists(w->bin) || fs_exists(w->idx)))
        st = KR_FAIL(KR_ERR_ARG, "%s: exists already; --force replaces it",
                     fs_exists(w->bin) ? w->bin : w->idx);
    if (st == KR_OK) st = fs_mkdirs(w->folder);
    if (st == KR_OK) st = open_temp(w);
    if (st == KR_OK)
        *out = w;
    else
        mem_free(w);
    return st == KR_ERR_IO ? KR_ERR_ARG : st;
}

static kr_status flush(struct token_writer *w)
{
    TRY(fs_pwrite(w->fd, w->bin_temp, w->buffer, w->filled, w->at));
    w->at += w->filled;
    w->filled = 0;
    return KR_OK;
}

kr_status token_writer_add(struct token_writer *w, const int32_t *id, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (w->filled == BUFFER) TRY(flush(w));
        memcpy(w->buffer + w->filled, &id[i], w->width); /* little-endian */
        w->filled += w->width;
    }
    w->tokens_here += (int64_t)count;
    if (w->tokens_here > INT32_MAX)
        return KR_FAIL(KR_ERR_ARG,
                       "prepare: document %" PRId64
                       " has more than 2^31 tokens; the format has no room for it",
                       w->documents + 1);
    w->tokens += (int64_t)count;
    return KR_OK;
}

kr_status token_writer_end(struct token_writer *w)
{
    int32_t length = (int32_t)w->tokens_here;

    mem_append(&w->lengths, &length, sizeof length);
    w->tokens_here = 0;
    w->documents++;
    return w->lengths.failed ? KR_FAIL(KR_ERR_MEM, "no memory for the index") : KR_OK;
}

int64_t token_writer_documents(const struct token_writer *w) { return w->documents; }
int64_t token_writer_tokens(const struct token_writer *w) { return w->tokens; }

/* Header, lengths, offsets, documents: tokens.c reads it back. */
static void build_index(const struct token_writer *w, struct mem_text *t)
{
    uint64_t version = 1, n = (uint64_t)w->documents, m = n + 1;
    uint8_t code = w->width == 2 ? INDEX_U16 : INDEX_I32;
    int64_t at = 0;

    mem_append(t, "MMIDIDX\0", 9);
    mem_append(t, &version, sizeof version);
    mem_append(t, &code, 1);
    mem_append(t, &n, sizeof n);
    mem_append(t, &m, sizeof m);
    mem_append(t, w->lengths.at, w->lengths.len);
    for (int64_t i = 0; i < w->documents; i++) {
        int32_t length;

        mem_append(t, &at, sizeof at);
        memcpy(&length, w->lengths.at + i * (int64_t)sizeof length, sizeof length);
        at += (int64_t)length * (int64_t)w->width;
    }
    for (int64_t i = 0; i <= w->documents; i++)
        mem_append(t, &i, sizeof i);
}

static kr_status write_index(const struct token_writer *w)
{
    struct mem_text t = { 0 };
    kr_status st = KR_OK;
    int fd = -1;

    build_index(w, &t);
    if (t.failed) st = KR_FAIL(KR_ERR_MEM, "no memory for the index");
    if (st == KR_OK) st = fs_open(&fd, w->idx_temp, O_WRONLY | O_CREAT | O_TRUNC);
    if (st == KR_OK) st = fs_pwrite(fd, w->idx_temp, t.at, t.len, 0);
    if (st == KR_OK) st = fs_fsync(fd, w->idx_temp);
    if (fd >= 0) close(fd);
    mem_text_free(&t);
    return st;
}

kr_status token_writer_finish(struct token_writer *w)
{
    if (w->documents == 0)
        return KR_FAIL(KR_ERR_ARG, "prepare: no documents in the input");
    TRY(flush(w));
    TRY(fs_fsync(w->fd, w->bin_temp));
    TRY(write_index(w));
    /* the .bin comes last: alone it would be read as another format, with a foreign index
     * as other tokens; an index alone is refused */
    TRY(fs_unlink(w->bin));
    TRY(fs_fsync_dir(w->folder));
    TRY(fs_rename(w->idx_temp, w->idx));
    TRY(fs_fsync_dir(w->folder));
    TRY(fs_rename(w->bin_temp, w->bin));
    TRY(fs_fsync_dir(w->folder));
    w->finished = true;
    return KR_OK;
}

void token_writer_close(struct token_writer *w)
{
    if (!w) return;
    close(w->fd);
    if (!w->finished) {
        (void)unlink(w->bin_temp);
        (void)unlink(w->idx_temp);
    }
    mem_text_free(&w->lengths);
    mem_free(w);
}
