/* record.c - the kinds of records as turns. */
#include "trainer/data/record.h"

static bool say(struct record *k, enum chat_role role, const char *text, bool learn)
{
    if (!text || k->count == RECORD_TURNS) {
        k->why = text ? "has too many turns" : "a turn has no text";
        return false;
    }
    k->turns[k->count++] = (struct chat_turn){ role, text, learn };
    return true;
}

/* A list of messages; only_last: of answers, only those of this list are learned. */
static bool add_messages(struct record *k, const cJSON *list, const char *role_key,
                         const char *text_key, bool learn)
{
    const cJSON *m;

    cJSON_ArrayForEach(m, list)
    {
        enum chat_role role;

        if (!chat_role(object_text(m, role_key), &role)) {
            k->why = "a message has no role that is known";
            return false;
        }
        if (!say(k, role, object_text(m, text_key),
                 learn && role == CHAT_ASSISTANT && object_true(m, "loss", true)))
            return false;
    }
    return true;
}

static bool read_prompt(struct record *k, const cJSON *j)
{
    const cJSON *prompt = object_member(j, "prompt"),
                *answer = object_member(j, "completion");

    if (cJSON_IsArray(prompt) && cJSON_IsArray(answer))
        return add_messages(k, prompt, "role", "content", false) &&
               add_messages(k, answer, "role", "content", true);
    if (cJSON_IsArray(prompt) && !answer)
        return add_messages(k, prompt, "role", "content", false);
    return say(k, CHAT_USER, cJSON_GetStringValue(prompt), false) &&
           (!answer || say(k, CHAT_ASSISTANT, cJSON_GetStringValue(answer), true));
}

static bool read_instruction(struct record *k, const cJSON *j)
{
    const char *system = object_text(j, "system"), *input = object_text(j, "input");
    const char *instruction = object_text(j, "instruction");
    const cJSON *pair;

    if (system && system[0] && !say(k, CHAT_SYSTEM, system, false)) return false;
    cJSON_ArrayForEach(
        pair,
        object_member(
            j, "history")) if (!say(k, CHAT_USER,
                                    cJSON_GetStringValue(cJSON_GetArrayItem(pair, 0)),
                                    false) ||
                               !say(k, CHAT_ASSISTANT,
                                    cJSON_GetStringValue(cJSON_GetArrayItem(pair, 1)),
                                    true)) return false;
    if (instruction && input && input[0]) {
        mem_printf(&k->joined, "%s\n%s", instruction, input);
        instruction = k->joined.at;
    }
    return say(k, CHAT_USER, instruction, false) &&
           (!object_member(j, "output") ||
            say(k, CHAT_ASSISTANT, object_text(j, "output"), true));
}

bool record_read(struct record *k, const cJSON *j)
{
    k->count = 0;
    k->joined.len = 0;
    k->text = NULL;
    k->why = "is none of prompt and completion, messages, instruction and output, "
             "conversations, text";
    if (object_member(j, "messages"))
        return add_messages(k, object_member(j, "messages"), "role", "content", true);
    if (object_member(j, "conversations"))
        return add_messages(k, object_member(j, "conversations"), "from", "value", true);
    if (object_member(j, "prompt")) return read_prompt(k, j);
    if (object_member(j, "instruction")) return read_instruction(k, j);
    k->text = object_text(j, "text");
    return k->text != NULL;
}

void record_free(struct record *k) { mem_text_free(&k->joined); }

const char *record_answer(struct record *k)
{
    if (k->count == 0 || k->turns[k->count - 1].role != CHAT_ASSISTANT) return NULL;
    return k->turns[--k->count].text;
}
