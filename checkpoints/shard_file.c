/* shard_file.c - create shards, create the view. */
#include "checkpoints/shard_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "base/fs.h"

enum { ALIGN = 4096, META_BLOCK = 1 << 16 };

/* Debian's HDF5 is thread-safe, other builds may not be: one thread at a time. */
static pthread_mutex_t hdf5 = PTHREAD_MUTEX_INITIALIZER;

static hid_t element_type(enum kern_dtype t)
{
    return t == KERN_F64   ? H5T_IEEE_F64LE
           : t == KERN_F32 ? H5T_IEEE_F32LE
                           : H5T_STD_U16LE;
}

/* The library's clean-up at exit crashes once a file could not be closed (disk full), so
 * it is left out: every file here is closed by hand.  Must come before any other call. */
static void set_up_library(void)
{
    (void)H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* The library creates files with the umask's rights; one that exists keeps its own. */
static kr_status create_private(const char *path)
{
    int fd;

    TRY(fs_open(&fd, path, O_WRONLY | O_CREAT));
    return fs_close(fd, path);
}

/* Format of HDF5 1.10: metadata with checksums.  Data aligned for plain writes. */
static hid_t open_new(const char *path)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file;

    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_alignment(access, ALIGN, ALIGN);
    H5Pset_meta_block_size(access, META_BLOCK);
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    return file;
}

/* Intermediate groups come into being with the dataset. */
static hid_t make_groups(void)
{
    hid_t link = H5Pcreate(H5P_LINK_CREATE);

    H5Pset_create_intermediate_group(link, 1);
    return link;
}

static void range_name(char out[2 * CKPT_NAME], const struct ckpt_tensor *t,
                       const struct ckpt_range *r)
{
    snprintf(out, 2 * CKPT_NAME, "%s/%" PRId64, t->name, r->begin);
}

static bool write_attribute(hid_t on, const char *name, int64_t value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(on, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = a >= 0 && H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0;

    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return ok;
}

static bool create_range(hid_t file, hid_t link, hid_t create,
                         const struct ckpt_tensor *t, struct ckpt_range *r)
{
    hsize_t count = (hsize_t)r->count;
    hid_t space = H5Screate_simple(1, &count, NULL), set;
    char name[2 * CKPT_NAME];
    haddr_t offset;
    bool ok;

    range_name(name, t, r);
    set = H5Dcreate2(file, name, element_type(t->type), space, link, create, H5P_DEFAULT);
    H5Sclose(space);
    if (set < 0) return false;
    ok = write_attribute(set, "begin", r->begin) &&
         write_attribute(set, "rows", t->rows) && write_attribute(set, "cols", t->cols);
    offset = H5Dget_offset(set);
    r->offset = (uint64_t)offset;
    return H5Dclose(set) >= 0 && ok && offset != HADDR_UNDEF;
}

static bool create_shard(const char *path, const struct ckpt_tensor *tensors,
                         struct ckpt_range *ranges, int32_t count)
{
    hid_t file = open_new(path), link, create;
    bool ok = file >= 0;

    if (!ok) return false;
    link = make_groups();
    create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(create, H5D_CONTIGUOUS);
    H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    for (int32_t i = 0; ok && i < count; i++)
        ok = create_range(file, link, create, &tensors[ranges[i].tensor], &ranges[i]);
    H5Pclose(create);
    H5Pclose(link);
    return H5Fclose(file) >= 0 && ok;
}

kr_status shard_file_create(const char *path, const struct ckpt_tensor *tensors,
                            struct ckpt_range *ranges, int32_t count)
{
    bool ok;

    TRY(create_private(path));
    pthread_mutex_lock(&hdf5);
    set_up_library();
    ok = create_shard(path, tensors, ranges, count);
    pthread_mutex_unlock(&hdf5);
    return ok ? KR_OK : KR_FAIL(KR_ERR_IO, "%s: cannot create as HDF5", path);
}

/* ---- the view --------------------------------------------------------------------------- */

/* Map elements [from, from + n) of a source of `total` elements onto the rectangle of the
 * whole tensor that starts at element `at` and has `rows` x `cols`. */
static bool map_piece(hid_t create, hid_t whole, const struct ckpt_tensor *t, int64_t at,
                      int64_t rows, int64_t cols, int64_t from, int64_t total,
                      const char *file, const char *name)
{
    hsize_t start[2] = { (hsize_t)(at / t->cols), (hsize_t)(at % t->cols) };
    hsize_t shape[2] = { (hsize_t)rows, (hsize_t)cols };
    hsize_t all = (hsize_t)total, first = (hsize_t)from, n = (hsize_t)(rows * cols);
    hid_t source = H5Screate_simple(1, &all, NULL);
    int skip = t->rows == 1; /* one-dimensional */
    bool ok;

    H5Sselect_hyperslab(whole, H5S_SELECT_SET, start + skip, NULL, shape + skip, NULL);
    H5Sselect_hyperslab(source, H5S_SELECT_SET, &first, NULL, &n, NULL);
    ok = H5Pset_virtual(create, whole, file, name, source) >= 0;
    H5Sclose(source);
    return ok;
}

/* A range may begin and end inside a row: head, whole rows, tail. */
static bool map_range(hid_t create, hid_t whole, const struct manifest *m,
                      const struct ckpt_range *r)
{
    const struct ckpt_tensor *t = &m->tensors[r->tensor];
    const char *file = m->shards[r->shard].file;
    int64_t at = r->begin, end = r->begin + r->count;
    char name[2 * CKPT_NAME];

    range_name(name, t, r);
    while (at < end) {
        int64_t in_row = t->cols - at % t->cols, rows = 1, cols = in_row;

        if (in_row == t->cols && end - at >= t->cols) rows = (end - at) / t->cols;
        if (cols > end - at) cols = end - at;
        if (!map_piece(create, whole, t, at, rows, cols, at - r->begin, r->count, file,
                       name))
            return false;
        at += rows * cols;
    }
    return true;
}

static bool set_fill(hid_t create, enum kern_dtype type)
{
    double nan64 = NAN;
    uint16_t nan16 = 0x7fc0;

    return type == KERN_BF16 ? H5Pset_fill_value(create, H5T_NATIVE_UINT16, &nan16) >= 0
                             : H5Pset_fill_value(create, H5T_NATIVE_DOUBLE, &nan64) >= 0;
}

/* Tensor i; its ranges start at *next. */
static bool view_tensor(hid_t file, hid_t link, const struct manifest *m, int32_t i,
                        int32_t *next)
{
    const struct ckpt_tensor *t = &m->tensors[i];
    hsize_t shape[2] = { (hsize_t)t->rows, (hsize_t)t->cols };
    int skip = t->rows == 1;
    hid_t whole = H5Screate_simple(2 - skip, shape + skip, NULL), set;
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    bool ok = set_fill(create, t->type);

    for (; ok && *next < m->range_count && m->ranges[*next].tensor == i; (*next)++)
        ok = map_range(create, whole, m, &m->ranges[*next]);
    H5Sselect_all(whole);
    set = ok ? H5Dcreate2(file, t->name, element_type(t->type), whole, link, create,
                          H5P_DEFAULT)
             : -1;
    H5Pclose(create);
    H5Sclose(whole);
    return set >= 0 && H5Dclose(set) >= 0;
}

static bool write_view(const char *path, const struct manifest *m)
{
    hid_t file = open_new(path), link;
    int32_t next = 0;
    bool ok = file >= 0;

    if (!ok) return false;
    link = make_groups();
    for (int32_t i = 0; ok && i < m->tensor_count; i++)
        ok = view_tensor(file, link, m, i, &next);
    H5Pclose(link);
    return H5Fclose(file) >= 0 && ok;
}

kr_status shard_file_view(const char *path, const struct manifest *m)
{
    bool ok;

    TRY(create_private(path));
    pthread_mutex_lock(&hdf5);
    set_up_library();
    ok = write_view(path, m);
    pthread_mutex_unlock(&hdf5);
    return ok ? KR_OK : KR_FAIL(KR_ERR_IO, "%s: cannot create as HDF5", path);
}
