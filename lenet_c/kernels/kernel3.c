// kernel @pool_1 = max_pool (%relu_1) -> (%pool_1) {  # 8,000 bytes
//   %pool_1 = max_pool(%relu_1) kernel=(2, 2) stride=(2, 2) padding=((0, 0), (0, 0)) dilation=(1, 1) ceil_mode=False : f32[1,16,5,5]{0,2,3,1}  # examples/models/lenet.py:22
// }
#include <stdint.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4u __attribute__((vector_size(16), aligned(4), may_alias));
static inline f32x4 irconv_select_f32x4(i32x4 c, f32x4 a, f32x4 b) { return (f32x4)((c & (i32x4)a) | (~c & (i32x4)b)); }

__attribute__((visibility("hidden"))) void lenet_kernel3_max_pool(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out0 = buffers[0];
  const float *restrict in0 = buffers[1];
  const int64_t rows = sizes[0];
  (void)out0; (void)in0; (void)rows; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  for (int64_t task = first; task < last; task += 1) {
    const int64_t first_row = (task * 122);
    const int64_t last_row = (first_row + 122);
    for (int64_t row = first_row; row < ((last_row < rows) ? last_row : rows); row += 1) {
      const int64_t position = (row % 5);
      const int64_t rest = (row / 5);
      const int64_t start = (position * 2);
      for (int64_t column = 0; column < 5; column += 1) {
        const int64_t source = (((column * 2) * 16) + (((position * 2) * 160) + (rest * 1600)));
        const int64_t place = ((column * 16) + ((position * 80) + (rest * 400)));
        for (int64_t channel = 0; channel < 16; channel += 4) {
          const f32x4 x = *(const f32x4u *)(in0 + ((source + 16) + channel));
          const f32x4 state = irconv_select_f32x4(((~((i32x4)(x <= *(const f32x4u *)(in0 + (source + channel))))) & ((i32x4)(*(const f32x4u *)(in0 + (source + channel)) == *(const f32x4u *)(in0 + (source + channel))))), x, *(const f32x4u *)(in0 + (source + channel)));
          const f32x4 x_1 = *(const f32x4u *)(in0 + ((source + 160) + channel));
          const f32x4 state_1 = irconv_select_f32x4(((~((i32x4)(x_1 <= state))) & ((i32x4)(state == state))), x_1, state);
          const f32x4 x_2 = *(const f32x4u *)(in0 + ((source + 176) + channel));
          const f32x4 state_2 = irconv_select_f32x4(((~((i32x4)(x_2 <= state_1))) & ((i32x4)(state_1 == state_1))), x_2, state_1);
          *(f32x4u *)(out0 + (place + channel)) = state_2;
        }
      }
    }
  }
}
