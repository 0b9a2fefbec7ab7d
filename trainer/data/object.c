/* object.c - members and whole files. */
#include "trainer/data/object.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

const cJSON *object_member(const cJSON *object, const char *name)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, name);

    return m && !cJSON_IsNull(m) ? m : NULL;
}

const char *object_text(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(object_member(object, name));
}

bool object_true(const cJSON *object, const char *name, bool otherwise)
{
    const cJSON *m = object_member(object, name);

    return cJSON_IsBool(m) ? cJSON_IsTrue(m) : otherwise;
}

int64_t object_count_of(const cJSON *m)
{
    double x = cJSON_IsNumber(m) ? m->valuedouble : -1;

    return x >= 0 && x <= 0x1p53 && x == (double)(int64_t)x ? (int64_t)x : -1;
}

int64_t object_count(const cJSON *object, const char *name)
{
    return object_count_of(object_member(object, name));
}

/* Is there a NUL, as it is or written \u0000? */
static bool has_nul(const char *text, size_t bytes)
{
    const char *end = text + bytes;

    for (const char *p = text; (p = memchr(p, '\\', (size_t)(end - p))) && p + 2 <= end;
         p += 2)
        if (end - p >= 6 && memcmp(p + 1, "u0000", 5) == 0) return true;
    return memchr(text, 0, bytes) != NULL;
}

cJSON *object_parse(const char *text, size_t bytes)
{
    const char *end = NULL;
    cJSON *j =
        has_nul(text, bytes) ? NULL : cJSON_ParseWithLengthOpts(text, bytes, &end, false);

    while (end && end < text + bytes && strchr(" \t\r\n", *end))
        end++;
    if (cJSON_IsObject(j) && end == text + bytes) return j;
    cJSON_Delete(j);
    return NULL;
}

kr_status object_read(cJSON **out, const char *path, size_t most_bytes)
{
    char *text = NULL;
    size_t bytes;
    kr_status st = fs_read_all(path, &text, &bytes, most_bytes);
    cJSON *j = NULL;

    if (st != KR_OK) return st == KR_ERR_MEM ? st : KR_ERR_ARG;
    if (has_nul(text, bytes)) {
        mem_free(text);
        return KR_FAIL(KR_ERR_ARG, "%s: holds the character U+0000", path);
    }
    j = cJSON_ParseWithLength(text, bytes);
    mem_free(text);
    if (!j) return KR_FAIL(KR_ERR_ARG, "%s: is no JSON", path);
    *out = j;
    return KR_OK;
}
