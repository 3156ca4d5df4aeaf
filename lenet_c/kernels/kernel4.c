// kernel @x_1 = reshape (%pool_1) -> (%x_1) {  # 3,200 bytes
//   %x_1 = reshape(%pool_1) shape=(1, 400) : f32[1,400]  # examples/models/lenet.py:23
// }
#include <stdint.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4u __attribute__((vector_size(16), aligned(4), may_alias));
static inline int64_t irconv_smaller_i64(int64_t a, int64_t b) { return a < b ? a : b; }
#if defined(__clang__) || __GNUC__ >= 12
#define IRCONV_SHUFFLE_f32x4(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define IRCONV_SHUFFLE_f32x4(a, b, ...) __builtin_shuffle(a, b, (i32x4){__VA_ARGS__})
#endif

static inline void irconv_transpose_f32x4(float *t, int64_t ts, const float *s, int64_t ss) {
  f32x4 a0 = *(const f32x4u *)(s + 0 * ss);
  f32x4 a1 = *(const f32x4u *)(s + 1 * ss);
  f32x4 a2 = *(const f32x4u *)(s + 2 * ss);
  f32x4 a3 = *(const f32x4u *)(s + 3 * ss);
  const f32x4 l1_0 = IRCONV_SHUFFLE_f32x4(a0, a2, 0, 4, 1, 5);
  const f32x4 h1_0 = IRCONV_SHUFFLE_f32x4(a0, a2, 2, 6, 3, 7);
  const f32x4 l1_1 = IRCONV_SHUFFLE_f32x4(a1, a3, 0, 4, 1, 5);
  const f32x4 h1_1 = IRCONV_SHUFFLE_f32x4(a1, a3, 2, 6, 3, 7);
  const f32x4 l2_0 = IRCONV_SHUFFLE_f32x4(l1_0, l1_1, 0, 4, 1, 5);
  const f32x4 h2_0 = IRCONV_SHUFFLE_f32x4(l1_0, l1_1, 2, 6, 3, 7);
  const f32x4 l2_1 = IRCONV_SHUFFLE_f32x4(h1_0, h1_1, 0, 4, 1, 5);
  const f32x4 h2_1 = IRCONV_SHUFFLE_f32x4(h1_0, h1_1, 2, 6, 3, 7);
  *(f32x4u *)(t + 0 * ts) = l2_0;
  *(f32x4u *)(t + 1 * ts) = h2_0;
  *(f32x4u *)(t + 2 * ts) = l2_1;
  *(f32x4u *)(t + 3 * ts) = h2_1;
}
static inline f32x4 irconv_load_part_f32x4(const float *p, int64_t n) {
  f32x4 v = {0};
  __builtin_memcpy(&v, p, (uint64_t)n * sizeof(float));
  return v;
}
static inline void irconv_store_part_f32x4(float *p, f32x4 v, int64_t n) {
  __builtin_memcpy(p, &v, (uint64_t)n * sizeof(float));
}
static inline void irconv_transpose_part_f32x4(float *t, int64_t ts, const float *s, int64_t ss, int64_t rows, int64_t columns) {
  f32x4 a0 = 0 < columns ? irconv_load_part_f32x4(s + 0 * ss, rows) : (f32x4){0};
  f32x4 a1 = 1 < columns ? irconv_load_part_f32x4(s + 1 * ss, rows) : (f32x4){0};
  f32x4 a2 = 2 < columns ? irconv_load_part_f32x4(s + 2 * ss, rows) : (f32x4){0};
  f32x4 a3 = 3 < columns ? irconv_load_part_f32x4(s + 3 * ss, rows) : (f32x4){0};
  const f32x4 l1_0 = IRCONV_SHUFFLE_f32x4(a0, a2, 0, 4, 1, 5);
  const f32x4 h1_0 = IRCONV_SHUFFLE_f32x4(a0, a2, 2, 6, 3, 7);
  const f32x4 l1_1 = IRCONV_SHUFFLE_f32x4(a1, a3, 0, 4, 1, 5);
  const f32x4 h1_1 = IRCONV_SHUFFLE_f32x4(a1, a3, 2, 6, 3, 7);
  const f32x4 l2_0 = IRCONV_SHUFFLE_f32x4(l1_0, l1_1, 0, 4, 1, 5);
  const f32x4 h2_0 = IRCONV_SHUFFLE_f32x4(l1_0, l1_1, 2, 6, 3, 7);
  const f32x4 l2_1 = IRCONV_SHUFFLE_f32x4(h1_0, h1_1, 0, 4, 1, 5);
  const f32x4 h2_1 = IRCONV_SHUFFLE_f32x4(h1_0, h1_1, 2, 6, 3, 7);
  if (0 < rows) irconv_store_part_f32x4(t + 0 * ts, l2_0, columns);
  if (1 < rows) irconv_store_part_f32x4(t + 1 * ts, h2_0, columns);
  if (2 < rows) irconv_store_part_f32x4(t + 2 * ts, l2_1, columns);
  if (3 < rows) irconv_store_part_f32x4(t + 3 * ts, h2_1, columns);
}

__attribute__((visibility("hidden"))) void lenet_kernel4_movement(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out = buffers[0];
  const float *restrict in0 = buffers[1];
  const int64_t extent0 = sizes[0];
  const int64_t extent1 = sizes[1];
  const int64_t extent2 = sizes[2];
  const int64_t piece = sizes[3];
  const int64_t rows = sizes[4];
  const int64_t inner_pieces = sizes[5];
  const int64_t middle_pieces = sizes[6];
  const int64_t strips_per_task = sizes[7];
  const int64_t strips = sizes[8];
  const int64_t out_stride0 = sizes[9];
  const int64_t out_stride1 = sizes[10];
  const int64_t in0_stride0 = sizes[11];
  const int64_t in0_stride1 = sizes[12];
  const int64_t in0_stride = sizes[13];
  (void)out; (void)in0; (void)extent0; (void)extent1; (void)extent2; (void)piece; (void)rows; (void)inner_pieces; (void)middle_pieces; (void)strips_per_task; (void)strips; (void)out_stride0; (void)out_stride1; (void)in0_stride0; (void)in0_stride1; (void)in0_stride; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  const int64_t end = irconv_smaller_i64((last * strips_per_task), strips);
  for (int64_t strip = (first * strips_per_task); strip < end; strip += 1) {
    const int64_t inner = ((strip % inner_pieces) * piece);
    const int64_t rest = (strip / inner_pieces);
    const int64_t middle = ((rest % middle_pieces) * rows);
    const int64_t outer = (rest / middle_pieces);
    __typeof__(&out[0]) const out_base = (out + (inner + (outer * out_stride0)));
    __typeof__(&in0[0]) const in0_base = (in0 + ((inner * in0_stride) + (outer * in0_stride0)));
    const int64_t width = irconv_smaller_i64((extent2 - inner), piece);
    const int64_t last_row = irconv_smaller_i64((middle + rows), extent1);
    for (int64_t i = middle; i < last_row; i += 4) {
      const int64_t tile_rows = irconv_smaller_i64((last_row - i), 4);
      for (int64_t j = 0; j < width; j += 4) {
        const int64_t tile_columns = irconv_smaller_i64((width - j), 4);
        if (((tile_rows + tile_columns) >= 8)) {
          irconv_transpose_f32x4(out_base + ((i * out_stride1) + j), out_stride1, in0_base + ((j * in0_stride) + i), in0_stride);
        } else {
          irconv_transpose_part_f32x4(out_base + ((i * out_stride1) + j), out_stride1, in0_base + ((j * in0_stride) + i), in0_stride, tile_rows, tile_columns);
        }
      }
    }
  }
}
