/*
 * t_examples.c - records to conversations to rows: what is learned, where examples start,
 * that packing loses nothing, the templates of the families, bad records.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/check.h"
#include "trainer/data/dataset.h"

static char path[256], tokenizer_path[256], last_line[2048];

static void keep_line(enum log_level level, const char *text, void *arg)
{
    (void)level;
    (void)arg;
    snprintf(last_line, sizeof last_line, "%s", text);
}

static void put(const char *where, const char *text)
{
    FILE *f = fopen(where, "wb");

    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

enum { SEQ = 64 };

static struct dataset_config config_of(int template)
{
    return (struct dataset_config){ .path = path,
                                    .part = TOKENS_ALL,
                                    .vocab = 257,
                                    .context = SEQ,
                                    .tokenizer = "",
                                    .template = template,
                                    .ignore = -100 };
}

/* Row 0: tokens as text, with the learned labels as they are and '.' for the others. */
static const char *learned(const char *text)
{
    static char line[SEQ + 1];
    struct dataset_config c = config_of(1);
    int32_t token[SEQ], label[SEQ], start[SEQ];
    struct dataset_row row = { token, label, start };
    struct dataset *d = NULL;
    int64_t labels, last = 0;

    put(path, text);
    strcpy(line, "-");
    if (dataset_open(&d, &c) != KR_OK) return line;
    CHECK(dataset_window(d, 0, &row, &labels) == KR_OK);
    for (int i = 0; i < SEQ; i++) {
        line[i] = label[i] == -100 ? '.' : label[i] == 256 ? '$' : (char)label[i];
        if (label[i] != -100) last = i + 1;
    }
    line[last] = '\0';
    dataset_close(d);
    return line;
}

static void answers_and_their_end_are_learned(void)
{
    CHECK_STR(learned("{\"prompt\": \"ask\", \"completion\": \"say\"}"), "...say$");
    CHECK_STR(learned("{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}"),
              "...c$");
    CHECK_STR(learned("{\"text\": \"all\"}"), "all$");
    CHECK_STR(learned("{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, "
                      "{\"from\": \"gpt\", \"value\": \"r\"}]}"),
              ".r$");
}

static void every_answer_of_a_conversation_is_learned(void)
{
    CHECK_STR(
        learned("{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": "
                "\"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
                "\"B\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": "
                "\"assistant\", \"content\": \"D\"}]}"),
        "...B$.D$");
    CHECK_STR(
        learned("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
                "\"assistant\", \"content\": \"B\", \"loss\": false}, {\"role\": "
                "\"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": "
                "\"D\"}]}"),
        "....D$");
    CHECK_STR(learned("{\"prompt\": [{\"role\": \"assistant\", \"content\": \"a\"}], "
                      "\"completion\": [{\"role\": \"assistant\", \"content\": \"B\"}]}"),
              "..B$");
}

/* 40 records of many lengths: each is in exactly one row, whole, alone in its view. */
static void packing_loses_nothing_and_keeps_examples_apart(void)
{
    struct mem_text text = { 0 };
    struct dataset_config c = config_of(1);
    struct dataset *d = NULL;
    int32_t token[SEQ], label[SEQ], start[SEQ];
    struct dataset_row row = { token, label, start };
    int seen[40] = { 0 };
    int64_t labels, all = 0;

    for (int i = 0; i < 40; i++)
        mem_printf(&text, "{\"prompt\": \"%c\", \"completion\": \"%0*d\"}\n", '0' + i,
                   1 + i * 7 % 40, i);
    put(path, text.at);
    CHECK(dataset_open(&d, &c) == KR_OK);
    CHECK_I64(dataset_epoch(d), <, 25); /* 40 rows without packing */
    for (int64_t r = 0; r < dataset_windows(d); r++) {
        CHECK(dataset_window(d, r, &row, &labels) == KR_OK);
        all += labels;
        for (int i = 0; i < SEQ; i++) {
            CHECK(start[i] >= 0 && start[i] <= i && (i == 0 || start[i] >= start[i - 1]));
            if (start[i] == i &&
                token[i] == 256) { /* an example starts with the end token */
                int who = token[i + 1] - '0', len = 1 + who * 7 % 40;

                seen[who]++;
                CHECK(start[i + len + 1] == i); /* all of it sees its start */
                CHECK_I64(label[i + len + 1], ==, 256);
                CHECK_I64(label[i], ==, -100);
            }
        }
    }
    for (int i = 0; i < 40; i++)
        CHECK_I64(seen[i], ==, 1);
    for (int i = 0; i < 40; i++)
        all -= 2 + i * 7 % 40;
    CHECK_I64(all, ==, 0);
    dataset_close(d);
    mem_text_free(&text);
}

/* An epoch visits each row once, another in another order.  No two examples fit a row. */
static void samples_are_a_permutation_of_the_rows(void)
{
    struct dataset_config c = config_of(1);
    struct mem_text text = { 0 };
    struct dataset *d = NULL;
    int32_t token[SEQ], label[SEQ], start[SEQ];
    struct dataset_row row = { token, label, start };
    int seen[20] = { 0 }, other = 0;
    int64_t labels;

    for (int i = 0; i < 20; i++)
        mem_printf(&text, "{\"prompt\": \"%c\", \"completion\": \"%040d\"}\n", 'A' + i,
                   0);
    put(path, text.at);
    CHECK(dataset_open(&d, &c) == KR_OK);
    for (int64_t n = 0; n < 40; n++) {
        static int first[20];

        CHECK(dataset_sample(d, 5, n, &row, &labels) == KR_OK);
        seen[token[1] - 'A']++;
        if (n < 20) first[n] = token[1];
        if (n >= 20) other += first[n - 20] != token[1];
    }
    for (int i = 0; i < 20; i++)
        CHECK_I64(seen[i], ==, 2);
    CHECK_I64(other, >, 0);
    dataset_close(d);
    mem_text_free(&text);
}

static void the_last_examples_are_held_out(void)
{
    struct dataset_config c = config_of(1);
    struct dataset *train = NULL, *held = NULL;
    struct mem_text text = { 0 };

    for (int i = 0; i < 10; i++)
        mem_printf(&text, "{\"prompt\": \"%c\", \"completion\": \"%040d\"}\n\n", 'A' + i,
                   0);
    put(path, text.at);
    c.held_out = 0.2;
    c.part = TOKENS_TRAIN;
    CHECK(dataset_open(&train, &c) == KR_OK);
    c.part = TOKENS_HELD_OUT;
    CHECK(dataset_open(&held, &c) == KR_OK);
    CHECK_I64(dataset_windows(train), ==, 8);
    CHECK_I64(dataset_windows(held), ==, 2);
    dataset_close(train);
    dataset_close(held);
    mem_text_free(&text);
}

/* ---- templates --------------------------------------------------------------------------- */

/* A byte-level tokenizer with the special tokens of all templates, ids 300 on. */
static const char *const specials[] = {
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<s>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "</s>",
    "[gMASK]",
    "<sop>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
    "sop",
};

static void put_tokenizer(void)
{
    struct mem_text t = { 0 };

    mem_printf(&t, "{\"added_tokens\":[");
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        mem_printf(&t, "%s{\"id\":%zu,\"content\":\"%s\",\"special\":true}", i ? "," : "",
                   300 + i, specials[i]);
    mem_printf(&t,
               "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"unk_token\":\"a\","
               "\"merges\":[],\"vocab\":{");
    for (int c = 33; c < 127; c++)
        mem_printf(&t, "\"%s%c\":%d,", c == '"' || c == '\\' ? "\\" : "", c, c);
    mem_printf(&t, "\"\u0120\":32,\"\u010a\":10}}}");
    put(tokenizer_path, t.at);
    mem_text_free(&t);
}

/* A conversation as it reads, learned tokens between braces. */
static const char *rendered(int template, bool answer)
{
    static char line[1024];
    static const struct chat_turn turns[] = { { CHAT_SYSTEM, "S", false },
                                              { CHAT_USER, "u<s>", false },
                                              { CHAT_ASSISTANT, "a", true },
                                              { CHAT_USER, "v", false },
                                              { CHAT_ASSISTANT, "b", true } };
    const struct chat_template *c = NULL;
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct ids ids = { 0 };
    struct mem_text learn = { 0 }, out = { 0 };
    bool in = false;

    CHECK(tokenizer_open(&t, tokenizer_path) == KR_OK && encoder_open(&e, t) == KR_OK);
    CHECK(chat_choose(&c, template, t) == KR_OK);
    CHECK(chat_render(c, t, e, turns, answer ? 2 : 5, answer, &ids, &learn) == KR_OK);
    CHECK_I64(ids.count, ==, learn.len);
    for (size_t i = 0; i < ids.count; i++) {
        if (in != learn.at[i]) mem_printf(&out, in ? "}" : "{");
        in = learn.at[i];
        tokenizer_decode(t, &ids.at[i], 1, true, false, &out);
    }
    snprintf(line, sizeof line, "%s%s", out.at, in ? "}" : "");
    /* what a person says is never a special token */
    for (size_t i = 0; i < ids.count; i++)
        if (template != 4) CHECK(ids.at[i] != 304);
    ids_free(&ids);
    mem_text_free(&learn);
    mem_text_free(&out);
    encoder_close(e);
    tokenizer_close(t);
    return line;
}

static void templates_are_those_of_the_families(void)
{
    put_tokenizer();
    CHECK_STR(rendered(1, false),
              "<|endoftext|>S\nu<s>{a<|endoftext|>}v{b<|endoftext|>}");
    CHECK_STR(
        rendered(2, false),
        "<|endoftext|>S\n\n### Instruction:\nu<s>\n\n### Response:\n{a<|endoftext|>}"
        "### Instruction:\nv\n\n### Response:\n{b<|endoftext|>}");
    CHECK_STR(
        rendered(3, false),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<s><|im_end|>\n<|im_start|>"
        "assistant\n{a<|im_end|>}\n<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n"
        "{b<|im_end|>}\n");
    CHECK_STR(
        rendered(4, false),
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nu<s> [/INST] {a </s>}<s>[INST] v [/INST] {b "
        "</s>}");
    CHECK_STR(
        rendered(5, false),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nu<s><|eot_id|><|start_header_id|>"
        "assistant<|end_header_id|>\n\n{a<|eot_id|>}<|start_header_id|>user"
        "<|end_header_id|>\n\nv<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
        "\n\n{b<|eot_id|>}");
    CHECK_STR(rendered(7, false), "[gMASK]<sop><|system|>\nS<|user|>\nu<s><|assistant|>"
                                  "\n{a<|user|>}\nv<|assistant|>"
                                  "\n{b<|user|>}");
    CHECK_STR(
        rendered(6, false),
        "[gMASK]sop<|system|>\nS<|user|>\nu<s><|assistant|>\n{a<|user|>}\nv<|assistant|>"
        "\n{b<|user|>}");
}

static void a_prompt_ends_where_an_answer_begins(void)
{
    CHECK_STR(rendered(3, true), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<s>"
                                 "<|im_end|>\n<|im_start|>assistant\n");
    CHECK_STR(rendered(7, true),
              "[gMASK]<sop><|system|>\nS<|user|>\nu<s><|assistant|>\n");
}

/* ---- bad records ------------------------------------------------------------------------- */

static void refused(const char *text, const char *why)
{
    struct dataset_config c = config_of(1);
    struct dataset *d = NULL;

    put(path, text);
    last_line[0] = '\0';
    CHECK(dataset_open(&d, &c) == KR_ERR_ARG);
    CHECK(d == NULL);
    if (!strstr(last_line, why)) CHECK_STR(last_line, why);
}

static void bad_records_name_their_line(void)
{
    log_capture(keep_line, NULL);
    refused("", "holds no example");
    refused("{\"text\": \"a\"}\n{\n", ":2: is not one JSON object");
    refused("{\"text\": \"a\"} x\n", ":1: is not one JSON object");
    refused("\n\n{\"a\": 1}", ":3: is none of");
    refused("{\"prompt\": \"a\"}", ":1: has no answer to learn");
    refused("{\"messages\": [{\"role\": \"boss\", \"content\": \"a\"}]}", "no role");
    refused("{\"prompt\": \"a\\u0000\", \"completion\": \"b\"}", ":1: is not one JSON");
    refused("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            "has no answer to learn");
    log_capture(NULL, NULL);
}

static void long_examples_are_left_out_with_a_warning(void)
{
    char text[600];
    struct dataset_config c = config_of(1);
    struct dataset *d = NULL;

    /* 63 letters, the end token before and behind them: as many labels as a row has */
    snprintf(text, sizeof text,
             "{\"text\": \"%063d\"}\n{\"text\": \"%064d\"}\n{\"text\": \"%0200d\"}\n", 0,
             0, 0);
    put(path, text);
    log_capture(keep_line, NULL);
    CHECK(dataset_open(&d, &c) == KR_OK);
    log_capture(NULL, NULL);
    CHECK(strstr(last_line, "2 examples are longer") != NULL);
    CHECK_I64(dataset_windows(d), ==, 1);
    dataset_close(d);
}

/* The plain template over bytes, and one with a turn that differs. */
static void templates_are_told_as_jinja(void)
{
    struct tokenizer *t = NULL;
    struct mem_text text = { 0 };

    CHECK(tokenizer_open(&t, "byte") == KR_OK);
    CHECK(chat_usable(3, t) == NULL); /* chatml: bytes have no such tokens */
    chat_jinja(chat_usable(1, t), t, &text);
    CHECK_STR(text.at,
              "{{ '<|endoftext|>' }}{% for turn in messages %}"
              "{% if turn['role'] == 'system' %}{{ '' + turn['content'] + '\\n' }}"
              "{% elif turn['role'] == 'user' %}{{ '' + turn['content'] + '' }}"
              "{% elif turn['role'] == 'assistant' %}"
              "{{ '' + turn['content'] + '<|endoftext|>' }}"
              "{% else %}{{ '' + turn['content'] + '\\n' }}{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '' }}{% endif %}");
    text.len = 0;
    chat_jinja(chat_usable(4, t), t, &text);
    CHECK(strstr(text.at, "{% elif turn['role'] == 'user' and not loop.first and "
                          "messages[loop.index0 - 1]['role'] == 'system' %}"
                          "{{ '' + turn['content'] + ' [/INST]' }}"
                          "{% elif turn['role'] == 'user' %}{{ '<s>[INST] ' + "));
    mem_text_free(&text);
    tokenizer_close(t);
}

int main(void)
{
    const char *folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";

    snprintf(path, sizeof path, "%s/t_examples.%d.jsonl", folder, (int)getpid());
    snprintf(tokenizer_path, sizeof tokenizer_path, "%s/t_examples.%d.json", folder,
             (int)getpid());
    RUN(answers_and_their_end_are_learned);
    RUN(every_answer_of_a_conversation_is_learned);
    RUN(packing_loses_nothing_and_keeps_examples_apart);
    RUN(samples_are_a_permutation_of_the_rows);
    RUN(the_last_examples_are_held_out);
    RUN(templates_are_those_of_the_families);
    RUN(a_prompt_ends_where_an_answer_begins);
    RUN(templates_are_told_as_jinja);
    RUN(bad_records_name_their_line);
    RUN(long_examples_are_left_out_with_a_warning);
    unlink(path);
    unlink(tokenizer_path);
    return check_done();
}
