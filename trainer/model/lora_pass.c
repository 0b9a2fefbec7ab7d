/* lora_pass.c - the two small products beside a large one. */
#include "trainer/model/lora.h"

/* low = scale x a^T */
static kr_status squeeze(const struct lora_env *e, const struct lora_pair *w,
                         struct kern_mat x)
{
    TRY(kern_linear_fwd(e->q, e->low, x, w->a, kern_none, kern_none));
    return kern_scale(e->q, e->low, e->low, e->scale);
}

kr_status lora_fwd(const struct lora_env *e, const struct lora_pair *w, struct kern_mat y,
                   struct kern_mat x)
{
    TRY(squeeze(e, w, x));
    return kern_linear_fwd(e->q, y, e->low, w->b, kern_none, y);
}

kr_status lora_bwd(const struct lora_env *e, const struct lora_pair *w,
                   const struct lora_pair *g, bool add, struct kern_mat dx,
                   struct kern_mat dy, struct kern_mat x)
{
    TRY(squeeze(e, w, x));
    TRY(kern_linear_bwd_w(e->q, g->b, kern_none, dy, e->low, add));
    TRY(kern_linear_bwd_x(e->q, e->d_low, dy, w->b, false));
    TRY(kern_scale(e->q, e->d_low, e->d_low, e->scale));
    TRY(kern_linear_bwd_w(e->q, g->a, kern_none, e->d_low, x, add));
    return kern_linear_bwd_x(e->q, dx, e->d_low, w->a, true);
}
