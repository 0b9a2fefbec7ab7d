/* sm80.cuh - the instructions of kernels/cuda/sm80.cuh, written out for the emulated GPU. */
#ifndef KERN_CUDA_SM80_CUH
#define KERN_CUDA_SM80_CUH

#include <cuda_bf16.h>

/* The thread's copies under way; emu.cu keeps them. */
void emu_copy(void *shared, const void *from, int bytes);
void emu_copy_commit();
void emu_copy_wait(int pending);
[[noreturn]] void emu_fail(const char *why);

static inline void copy_async(void *shared, const void *from, int bytes)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)from % 16 || bytes < 0 || bytes > 16)
        emu_fail("copy_async: not 16 bytes at multiples of 16");
    emu_copy(shared, from, bytes);
}
static inline void copy_commit() { emu_copy_commit(); }
template <int PENDING> static inline void copy_wait() { emu_copy_wait(PENDING); }

/* Eight rows of one matrix must lie in eight different groups of banks. */
static inline void emu_check_rows(const emu_words *all)
{
    for (int m = 0; m < 32; m += 8) {
        unsigned groups = 0;

        for (int r = 0; r < 8; r++) {
            if (all[m + r].at[0] % 16) emu_fail("ldmatrix: a row is not aligned");
            groups |= 1u << all[m + r].at[0] / 16 % 8;
        }
        if (groups != 0xffu) emu_fail("ldmatrix: rows share banks");
    }
}

static inline const uint16_t *emu_row(const emu_words *all, int matrix, int row)
{
    return (const uint16_t *)all[8 * matrix + row].at[0];
}

static inline void load_matrices(unsigned r[4], const void *shared)
{
    const emu_words mine = { { (uint64_t)shared } }, *all = emu_exchange(&mine);
    const int row = emu_lane() / 4, col = emu_lane() % 4 * 2;

    emu_check_rows(all);
    for (int m = 0; m < 4; m++)
        r[m] = emu_row(all, m, row)[col] | (unsigned)emu_row(all, m, row)[col + 1] << 16;
}

static inline void load_matrices_turned(unsigned r[4], const void *shared)
{
    const emu_words mine = { { (uint64_t)shared } }, *all = emu_exchange(&mine);
    const int col = emu_lane() / 4, row = emu_lane() % 4 * 2;

    emu_check_rows(all);
    for (int m = 0; m < 4; m++)
        r[m] = emu_row(all, m, row)[col] | (unsigned)emu_row(all, m, row + 1)[col] << 16;
}

static inline float emu_half(uint64_t word, int half)
{
    return bf16_value((uint16_t)(word >> 16 * half));
}

static inline void multiply(float d[4], const unsigned a[4], const unsigned b[2])
{
    const emu_words mine = { { a[0], a[1], a[2], a[3], b[0], b[1] } };
    const emu_words *all = emu_exchange(&mine);

    for (int e = 0; e < 4; e++) {
        const int row = emu_lane() / 4 + e / 2 * 8, col = emu_lane() % 4 * 2 + e % 2;
        double sum = d[e];

        for (int k = 0; k < 16; k++)
            sum += (double)emu_half(all[row % 8 * 4 + k % 8 / 2].at[row / 8 + k / 8 * 2],
                                    k % 2) *
                   (double)emu_half(all[col * 4 + k % 8 / 2].at[4 + k / 8], k % 2);
        d[e] = (float)sum;
    }
}

#endif
