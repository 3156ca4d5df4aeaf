// kernel @pool = max_pool (%relu) -> (%pool) {  # 23,520 bytes
//   %pool = max_pool(%relu) kernel=(2, 2) stride=(2, 2) padding=((0, 0), (0, 0)) dilation=(1, 1) ceil_mode=False : f32[1,6,14,14]{0,2,3,1}  # examples/models/lenet.py:21
// }
#include <stdint.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4u __attribute__((vector_size(16), aligned(4), may_alias));
static inline f32x4 irconv_select_f32x4(i32x4 c, f32x4 a, f32x4 b) { return (f32x4)((c & (i32x4)a) | (~c & (i32x4)b)); }
static inline f32x4 irconv_load_part_f32x4(const float *p, int64_t n) {
  f32x4 v = {0};
  __builtin_memcpy(&v, p, (uint64_t)n * sizeof(float));
  return v;
}
static inline void irconv_store_part_f32x4(float *p, f32x4 v, int64_t n) {
  __builtin_memcpy(p, &v, (uint64_t)n * sizeof(float));
}

__attribute__((visibility("hidden"))) void lenet_kernel1_max_pool(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out0 = buffers[0];
  const float *restrict in0 = buffers[1];
  const int64_t rows = sizes[0];
  (void)out0; (void)in0; (void)rows; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  for (int64_t task = first; task < last; task += 1) {
    const int64_t first_row = (task * 117);
    const int64_t last_row = (first_row + 117);
    for (int64_t row = first_row; row < ((last_row < rows) ? last_row : rows); row += 1) {
      const int64_t position = (row % 14);
      const int64_t rest = (row / 14);
      const int64_t start = (position * 2);
      for (int64_t column = 0; column < 14; column += 1) {
        const int64_t source = (((column * 2) * 6) + (((position * 2) * 168) + (rest * 4704)));
        const int64_t place = ((column * 6) + ((position * 84) + (rest * 1176)));
        const f32x4 x = *(const f32x4u *)(in0 + (source + 6));
        const f32x4 state = irconv_select_f32x4(((~((i32x4)(x <= *(const f32x4u *)(in0 + source)))) & ((i32x4)(*(const f32x4u *)(in0 + source) == *(const f32x4u *)(in0 + source)))), x, *(const f32x4u *)(in0 + source));
        const f32x4 x_1 = *(const f32x4u *)(in0 + (source + 168));
        const f32x4 state_1 = irconv_select_f32x4(((~((i32x4)(x_1 <= state))) & ((i32x4)(state == state))), x_1, state);
        const f32x4 x_2 = *(const f32x4u *)(in0 + (source + 174));
        const f32x4 state_2 = irconv_select_f32x4(((~((i32x4)(x_2 <= state_1))) & ((i32x4)(state_1 == state_1))), x_2, state_1);
        *(f32x4u *)(out0 + place) = state_2;
        const f32x4 x_3 = irconv_load_part_f32x4(in0 + ((source + 6) + 4), 2);
        const f32x4 state_3 = irconv_select_f32x4(((~((i32x4)(x_3 <= irconv_load_part_f32x4(in0 + (source + 4), 2)))) & ((i32x4)(irconv_load_part_f32x4(in0 + (source + 4), 2) == irconv_load_part_f32x4(in0 + (source + 4), 2)))), x_3, irconv_load_part_f32x4(in0 + (source + 4), 2));
        const f32x4 x_4 = irconv_load_part_f32x4(in0 + ((source + 168) + 4), 2);
        const f32x4 state_4 = irconv_select_f32x4(((~((i32x4)(x_4 <= state_3))) & ((i32x4)(state_3 == state_3))), x_4, state_3);
        const f32x4 x_5 = irconv_load_part_f32x4(in0 + ((source + 174) + 4), 2);
        const f32x4 state_5 = irconv_select_f32x4(((~((i32x4)(x_5 <= state_4))) & ((i32x4)(state_4 == state_4))), x_5, state_4);
        irconv_store_part_f32x4(out0 + (place + 4), state_5, 2);
      }
    }
  }
}
