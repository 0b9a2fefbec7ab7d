/*
 * st_folder.h - the tensors of a model in a folder: model.safetensors, or shards that
 * model.safetensors.index.json lists.
 *
 * Hostile until checked: shards are plain names in the folder, the index and the headers
 * name the same tensors, each once.
 */
#ifndef CKPT_ST_FOLDER_H
#define CKPT_ST_FOLDER_H

#include "checkpoints/safetensors.h"

enum { ST_FILE_NAME = 128 };

#define ST_SINGLE "model.safetensors"
#define ST_INDEX  "model.safetensors.index.json"

/* One line of an index. */
struct st_place {
    char name[ST_NAME], file[ST_FILE_NAME];
};

struct st_index {
    struct st_place *list; /* by name */
    int32_t count;
};

/* KR_ERR_DATA with one line that begins with `source`; st_index_free afterwards. */
kr_status st_index_parse(struct st_index *out, const char *text, size_t bytes,
                         const char *source);
void st_index_free(struct st_index *x);

struct st_folder {
    struct st_file *files;
    int32_t count;
};

/* Prefers the index.  KR_ERR_ARG: neither is there; KR_ERR_DATA: they are wrong. */
kr_status st_folder_open(struct st_folder *out, const char *path);
void st_folder_close(struct st_folder *f); /* a zeroed one is fine */

/* The tensor and the file it is in; NULL if there is none. */
const struct st_tensor *st_folder_find(const struct st_folder *f, const char *name,
                                       const struct st_file **file);

#endif
