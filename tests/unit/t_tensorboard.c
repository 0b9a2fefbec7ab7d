/* TensorBoard records: bytes that TensorBoard's own reader takes. */
#include "trainer/run/tensorboard.h"

#include "tests/check.h"

/* The bytes as hexadecimal digits. */
static const char *hex(const uint8_t *at, size_t len)
{
    static char text[1024];

    for (size_t i = 0; i < len && 2 * i + 2 < sizeof text; i++)
        snprintf(text + 2 * i, 3, "%02x", at[i]);
    return text;
}

/* Both records were read back by TensorBoard's protocol buffers. */
static void records_are_the_known_bytes(void)
{
    struct tensorboard_scalar loss = { "loss", 2.5 };
    uint8_t out[256];
    size_t len = tensorboard_record(out, sizeof out, 1.0, 0, NULL, 0);

    CHECK_STR(hex(out, len), "1800000000000000a37f4b22"
                             "09000000000000f03f1a0d627261696e2e4576656e743a32"
                             "86bf577a");
    len = tensorboard_record(out, sizeof out, 2.0, 7, &loss, 1);
    CHECK_STR(hex(out, len), "1a00000000000000129bd82d"
                             "09000000000000004010072a0d0a0b0a046c6f73731500002040"
                             "c2dfec60");
}

static void steps_beyond_a_byte_are_varints(void)
{
    struct tensorboard_scalar loss = { "loss", 2.5 };
    uint8_t out[256];
    size_t len = tensorboard_record(out, sizeof out, 2.0, 300, &loss, 1);

    CHECK_I64(len, ==, 12 + 27 + 4);
    CHECK_I64(out[12 + 9], ==, 0x10);
    CHECK_I64(out[12 + 10], ==, 0xac); /* 300 = 2 * 128 + 44 */
    CHECK_I64(out[12 + 11], ==, 0x02);
}

static void a_record_that_does_not_fit_is_none(void)
{
    struct tensorboard_scalar loss = { "loss", 2.5 };
    uint8_t out[256];
    size_t len = tensorboard_record(out, sizeof out, 2.0, 7, &loss, 1);

    for (size_t room = 0; room < len; room++)
        CHECK_I64(tensorboard_record(out, room, 2.0, 7, &loss, 1), ==, 0);
    CHECK_I64(tensorboard_record(out, len, 2.0, 7, &loss, 1), ==, len);
}

int main(void)
{
    RUN(records_are_the_known_bytes);
    RUN(steps_beyond_a_byte_are_varints);
    RUN(a_record_that_does_not_fit_is_none);
    return check_done();
}
