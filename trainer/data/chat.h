/*
 * chat.h - conversations as tokens: the chat templates of the model families.
 *
 * A template is a row of a table: what stands before the first turn, and the marks around
 * the turns of each role.  Marks may hold special tokens; what people say never does: their
 * text is encoded with special tokens as plain text.  Text between two special tokens is
 * encoded in one go, and which tokens are learned is told by bytes, for merges may cross
 * the seam between a mark and a text.
 */
#ifndef TRAIN_CHAT_H
#define TRAIN_CHAT_H

#include "trainer/data/tokenizer.h"

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL, CHAT_ROLES };

struct chat_turn {
    enum chat_role role;
    const char *text;
    bool learn; /* the text and the mark that ends it carry loss */
};

struct chat_template;

/* Names for settings and messages, in the order of the table; "auto" stands before it. */
#define CHAT_CHOICES "auto|plain|alpaca|chatml|llama2|llama3|chatglm3|glm4"

/* Choice number `choice` of CHAT_CHOICES for a tokenizer.  auto: by its special tokens, else
 * plain.  KR_ERR_ARG: it lacks a token that the template needs. */
kr_status chat_choose(const struct chat_template **out, int choice,
                      const struct tokenizer *t);
const char *chat_name(const struct chat_template *c);

/* The same without an error line: NULL. */
const struct chat_template *chat_usable(int choice, const struct tokenizer *t);

/* The role that is called so ("system", "user" or "human", "assistant" or "gpt", "tool",
 * "observation", ...); false: none. */
bool chat_role(const char *name, enum chat_role *out);

/* Append a conversation to ids and, a byte of 0 or 1 each, whether they are learned to
 * `learn` (may be NULL).  answer: the mark that begins an answer follows. */
kr_status chat_render(const struct chat_template *c, const struct tokenizer *t,
                      struct encoder *e, const struct chat_turn *turns, int count,
                      bool answer, struct ids *ids, struct mem_text *learn);

/* Does this id end an answer? */
bool chat_stops(const struct chat_template *c, const struct tokenizer *t, int32_t id);

/* Append the ids of which chat_stops is true. */
kr_status chat_stop_ids(const struct chat_template *c, const struct tokenizer *t,
                        struct ids *out);

/* Append the template as Jinja, as tokenizer_config.json has it: over `messages`, whose roles
 * are system, user, assistant and, whatever else, tool; with add_generation_prompt. */
void chat_jinja(const struct chat_template *c, const struct tokenizer *t,
                struct mem_text *out);

#endif
