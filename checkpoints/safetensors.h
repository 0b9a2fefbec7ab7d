/*
 * safetensors.h - one file of named tensors in Hugging Face's container.
 *
 *   8 bytes   N, little-endian
 *   N bytes   a JSON object: name -> {"dtype", "shape", "data_offsets": [begin, end)},
 *             perhaps "__metadata__": {text: text}; padded with spaces
 *   buffer    the tensors, row-major, little-endian; they tile it: no hole, no overlap
 *
 * Hostile until checked: st_header_parse accepts only what is consistent in itself and
 * with the length of the file.  Data is read with plain reads, so a file that shrinks
 * meanwhile is an error and no fault of memory.
 */
#ifndef CKPT_SAFETENSORS_H
#define CKPT_SAFETENSORS_H

#include "base/fs.h"

enum { ST_NAME = 200, ST_DIMS = 8, ST_HEADER_MOST = 100000000 /* bytes */ };

/* The element types that are numbers to us; others are known by their size only. */
enum st_type { ST_F64, ST_F32, ST_F16, ST_BF16, ST_FLOATS };

struct st_tensor {
    char name[ST_NAME]; /* printable ASCII without spaces */
    int type;           /* enum st_type, or beyond ST_FLOATS */
    int dims;
    int64_t shape[ST_DIMS];
    uint64_t begin, end; /* bytes in the buffer */
};

struct st_header {
    struct st_tensor *list; /* parsed: by name; printed: in the order of the buffer */
    int32_t count;
    uint64_t bytes; /* of the buffer */
};

const char *st_type_name(int type); /* "BF16" */
int st_type_of(const char *name);   /* -1: there is none */
int64_t st_elements(const struct st_tensor *t);
uint64_t st_bytes(const struct st_tensor *t);

/* Parse `text`, of a file whose buffer has `buffer` bytes.  KR_ERR_DATA with one line that
 * begins with `source`.  The caller frees *out with st_header_free. */
kr_status st_header_parse(struct st_header *out, const char *text, size_t bytes,
                          uint64_t buffer, const char *source);
void st_header_free(struct st_header *h);

/* Index by name in a parsed header, -1 if there is none. */
int32_t st_header_find(const struct st_header *h, const char *name);

/* Order the tensors (wide elements first, then by name, so that all are aligned) and give
 * them their places: begin, end, h->bytes. */
void st_header_lay_out(struct st_header *h);

/* ---- reading ---------------------------------------------------------------------------- */

struct st_file {
    int fd;
    char path[FS_PATH];
    uint64_t data; /* where the buffer begins */
    struct st_header header;
};

kr_status st_open(struct st_file *out, const char *path);
void st_close(struct st_file *f); /* a zeroed one is fine */

/* Elements [first, first + count) of a float tensor as float32. */
kr_status st_read(const struct st_file *f, const struct st_tensor *t, int64_t first,
                  int64_t count, float *out);

/* ---- writing ---------------------------------------------------------------------------- */

struct st_writer {
    int fd;
    char path[FS_PATH];
    uint64_t at;
};

/* Create `path` with the header of *h (laid out) and metadata {"format": "pt"}. */
kr_status st_create(struct st_writer *out, const char *path, const struct st_header *h);

/* The next `count` elements of the buffer, given as float32, stored as `type`. */
kr_status st_write(struct st_writer *w, int type, const float *from, int64_t count);

/* Make the file durable and close it; `st` is what came before, and comes back if bad. */
kr_status st_finish(struct st_writer *w, kr_status st);

/* May a tensor be called so?  Printable ASCII without spaces, shorter than ST_NAME; NULL is
 * no name. */
bool st_plain_name(const char *s);

#endif
