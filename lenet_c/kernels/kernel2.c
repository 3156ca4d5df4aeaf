// kernel @relu_1 = conv_epilogue (%pool, %conv2.weight, %conv2.reshape) -> (%relu_1) {  # 20,768 bytes
//   %conv2.conv = conv(%pool, %conv2.weight) stride=(1, 1) padding=((0, 0), (0, 0)) dilation=(1, 1) groups=1 : f32[1,16,10,10]{0,2,3,1}  # examples/models/lenet.py:22
//   %conv2 = add(%conv2.conv, %conv2.reshape) : f32[1,16,10,10]{0,2,3,1}  # examples/models/lenet.py:22
//   %relu_1 = relu(%conv2) : f32[1,16,10,10]{0,2,3,1}  # examples/models/lenet.py:22
// }
#include <stdint.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4u __attribute__((vector_size(16), aligned(4), may_alias));
static inline f32x4 irconv_splat_f32x4(float x) { return (f32x4){x, x, x, x}; }
static inline f32x4 irconv_larger_f32x4(f32x4 a, f32x4 b) {
#if defined(__SSE2__) && !defined(__clang__)
  return __builtin_ia32_maxps(a, b);
#else
  const i32x4 c = (i32x4)(a > b);
  return (f32x4)((c & (i32x4)a) | (~c & (i32x4)b));
#endif
}

__attribute__((visibility("hidden"))) void lenet_kernel2_conv_pack(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  const float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  for (int64_t task = first; task < last; task += 1) {
    const int64_t first_column = ((task % 2) * 8);
    const int64_t start = (first_column * 150);
    __typeof__(&packed[0]) const panel = (packed + (task * 1200));
    float kept[1008] __attribute__((aligned(64)));
    for (int64_t slice = 0; slice < 6; slice += 5) {
      const int64_t last = (((slice + 5) < 6) ? (slice + 5) : 6);
      for (int64_t column = 0; column < 8; column += 1) {
        const int64_t place = ((start + (column * 150)) + (slice * 25));
        const int64_t run = (column * 126);
        const int64_t channels = (last - slice);
        for (int64_t i = 0; i < (channels * 25); i += 1) {
          kept[(run + i)] = w[(place + i)];
        }
      }
      for (int64_t tap = 0; tap < 25; tap += 1) {
        for (int64_t channel = slice; channel < last; channel += 1) {
          const int64_t row = (((tap * 6) + channel) * 8);
          const int64_t at = (((channel - slice) * 25) + tap);
          for (int64_t column_1 = 0; column_1 < 8; column_1 += 1) {
            panel[(row + column_1)] = kept[(at + (column_1 * 126))];
          }
        }
      }
    }
  }
}

__attribute__((visibility("hidden"))) void lenet_kernel2_conv(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  const float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  const float *rows[6];
  const int64_t chunks = (((batch * 100) + 731) / 732);
  for (int64_t task = first; task < last; task += 1) {
    const int64_t chunk = (task % chunks);
    const int64_t rest = (task / chunks);
    const int64_t first_block = (rest * 2);
    const int64_t last_block = (((first_block + 2) < 2) ? (first_block + 2) : 2);
    __typeof__(&packed[0]) const panels = packed;
    __typeof__(&x[0]) const image = x;
    const int64_t start_pixel = (chunk * 732);
    const int64_t pixels = ((batch * 10) * 10);
    const int64_t stop_pixel = (((start_pixel + 732) < pixels) ? (start_pixel + 732) : pixels);
    for (int64_t tile = start_pixel; tile < stop_pixel; tile += 6) {
      const int64_t image_1 = ((tile / 10) / 10);
      const int64_t at = ((tile / 10) % 10);
      const int64_t at_1 = (tile % 10);
      int64_t n = image_1;
      int64_t o = at;
      int64_t o_1 = at_1;
      if ((((tile + 6) <= stop_pixel) & ((o_1 + 6) <= 10))) {
        __typeof__(&image[0]) const start = (image + (((n * 1176) + (o * 84)) + (o_1 * 6)));
        rows[0] = start;
        rows[1] = (start + 6);
        rows[2] = (start + 12);
        rows[3] = (start + 18);
        rows[4] = (start + 24);
        rows[5] = (start + 30);
      } else {
        for (int64_t p = 0; p < 6; p += 1) {
          rows[p] = (image + (((n * 1176) + (o * 84)) + (o_1 * 6)));
          if ((((tile + p) + 1) < stop_pixel)) {
            o_1 = (o_1 + 1);
            if ((o_1 == 10)) {
              o_1 = 0;
              o = (o + 1);
              if ((o == 10)) {
                o = 0;
                n = (n + 1);
              }
            }
          }
        }
      }
      for (int64_t block = first_block; block < last_block; block += 1) {
        __typeof__(&panels[0]) const panel = (panels + (block * 1200));
        const int64_t column = (block * 8);
        f32x4 sum0_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum0_1 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum1_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum1_1 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum2_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum2_1 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum3_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum3_1 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum4_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum4_1 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum5_0 = irconv_splat_f32x4(0x0.0p+0f);
        f32x4 sum5_1 = irconv_splat_f32x4(0x0.0p+0f);
        const float *const row = rows[0];
        const float *const row_1 = rows[1];
        const float *const row_2 = rows[2];
        const float *const row_3 = rows[3];
        const float *const row_4 = rows[4];
        const float *const row_5 = rows[5];
        for (int64_t i = 0; i < 5; i += 1) {
          const int64_t offset = (i * 84);
          __typeof__(&panel[0]) const weights = (panel + (i * 240));
          for (int64_t c = 0; c < 30; c += 1) {
            const f32x4 weight = *(const f32x4u *)(weights + (c * 8));
            const f32x4 weight_1 = *(const f32x4u *)(weights + ((c * 8) + 4));
            const f32x4 value = irconv_splat_f32x4(row[(offset + c)]);
            sum0_0 = (sum0_0 + (value * weight));
            sum0_1 = (sum0_1 + (value * weight_1));
            const f32x4 value_1 = irconv_splat_f32x4(row_1[(offset + c)]);
            sum1_0 = (sum1_0 + (value_1 * weight));
            sum1_1 = (sum1_1 + (value_1 * weight_1));
            const f32x4 value_2 = irconv_splat_f32x4(row_2[(offset + c)]);
            sum2_0 = (sum2_0 + (value_2 * weight));
            sum2_1 = (sum2_1 + (value_2 * weight_1));
            const f32x4 value_3 = irconv_splat_f32x4(row_3[(offset + c)]);
            sum3_0 = (sum3_0 + (value_3 * weight));
            sum3_1 = (sum3_1 + (value_3 * weight_1));
            const f32x4 value_4 = irconv_splat_f32x4(row_4[(offset + c)]);
            sum4_0 = (sum4_0 + (value_4 * weight));
            sum4_1 = (sum4_1 + (value_4 * weight_1));
            const f32x4 value_5 = irconv_splat_f32x4(row_5[(offset + c)]);
            sum5_0 = (sum5_0 + (value_5 * weight));
            sum5_1 = (sum5_1 + (value_5 * weight_1));
          }
        }
        if (((tile + 6) <= stop_pixel)) {
          const f32x4 value_6 = *(const f32x4u *)(operand2 + column);
          const f32x4 add = (sum0_0 + value_6);
          const f32x4 relu = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add);
          *(f32x4u *)(out + (column + (tile * 16))) = relu;
          const f32x4 value_7 = *(const f32x4u *)(operand2 + column);
          const f32x4 add_1 = (sum1_0 + value_7);
          const f32x4 relu_1 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_1);
          *(f32x4u *)(out + (column + ((tile + 1) * 16))) = relu_1;
          const f32x4 value_8 = *(const f32x4u *)(operand2 + column);
          const f32x4 add_2 = (sum2_0 + value_8);
          const f32x4 relu_2 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_2);
          *(f32x4u *)(out + (column + ((tile + 2) * 16))) = relu_2;
          const f32x4 value_9 = *(const f32x4u *)(operand2 + column);
          const f32x4 add_3 = (sum3_0 + value_9);
          const f32x4 relu_3 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_3);
          *(f32x4u *)(out + (column + ((tile + 3) * 16))) = relu_3;
          const f32x4 value_10 = *(const f32x4u *)(operand2 + column);
          const f32x4 add_4 = (sum4_0 + value_10);
          const f32x4 relu_4 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_4);
          *(f32x4u *)(out + (column + ((tile + 4) * 16))) = relu_4;
          const f32x4 value_11 = *(const f32x4u *)(operand2 + column);
          const f32x4 add_5 = (sum5_0 + value_11);
          const f32x4 relu_5 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_5);
          *(f32x4u *)(out + (column + ((tile + 5) * 16))) = relu_5;
          const f32x4 value_12 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_6 = (sum0_1 + value_12);
          const f32x4 relu_6 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_6);
          *(f32x4u *)(out + ((column + 4) + (tile * 16))) = relu_6;
          const f32x4 value_13 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_7 = (sum1_1 + value_13);
          const f32x4 relu_7 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_7);
          *(f32x4u *)(out + ((column + 4) + ((tile + 1) * 16))) = relu_7;
          const f32x4 value_14 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_8 = (sum2_1 + value_14);
          const f32x4 relu_8 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_8);
          *(f32x4u *)(out + ((column + 4) + ((tile + 2) * 16))) = relu_8;
          const f32x4 value_15 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_9 = (sum3_1 + value_15);
          const f32x4 relu_9 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_9);
          *(f32x4u *)(out + ((column + 4) + ((tile + 3) * 16))) = relu_9;
          const f32x4 value_16 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_10 = (sum4_1 + value_16);
          const f32x4 relu_10 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_10);
          *(f32x4u *)(out + ((column + 4) + ((tile + 4) * 16))) = relu_10;
          const f32x4 value_17 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_11 = (sum5_1 + value_17);
          const f32x4 relu_11 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_11);
          *(f32x4u *)(out + ((column + 4) + ((tile + 5) * 16))) = relu_11;
        } else {
          float kept[48] __attribute__((aligned(64)));
          *(f32x4u *)(kept + 0) = sum0_0;
          *(f32x4u *)(kept + 4) = sum0_1;
          *(f32x4u *)(kept + 8) = sum1_0;
          *(f32x4u *)(kept + 12) = sum1_1;
          *(f32x4u *)(kept + 16) = sum2_0;
          *(f32x4u *)(kept + 20) = sum2_1;
          *(f32x4u *)(kept + 24) = sum3_0;
          *(f32x4u *)(kept + 28) = sum3_1;
          *(f32x4u *)(kept + 32) = sum4_0;
          *(f32x4u *)(kept + 36) = sum4_1;
          *(f32x4u *)(kept + 40) = sum5_0;
          *(f32x4u *)(kept + 44) = sum5_1;
          int64_t n_1 = image_1;
          int64_t o_2 = at;
          int64_t o_3 = at_1;
          const int64_t count = (((stop_pixel - tile) < 6) ? (stop_pixel - tile) : 6);
          for (int64_t p_1 = 0; p_1 < count; p_1 += 1) {
            const f32x4 sum = *(const f32x4u *)(kept + (p_1 * 8));
            const f32x4 value_18 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_12 = (sum + value_18);
            const f32x4 relu_12 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_12);
            *(f32x4u *)(out + ((o_3 * 16) + ((o_2 * 160) + (column + (n_1 * 1600))))) = relu_12;
            const int64_t at_2 = (column + 4);
            const f32x4 sum_1 = *(const f32x4u *)(kept + ((p_1 * 8) + 4));
            const f32x4 value_19 = *(const f32x4u *)(operand2 + at_2);
            const f32x4 add_13 = (sum_1 + value_19);
            const f32x4 relu_13 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_13);
            *(f32x4u *)(out + ((o_3 * 16) + ((o_2 * 160) + (at_2 + (n_1 * 1600))))) = relu_13;
            o_3 = (o_3 + 1);
            if ((o_3 == 10)) {
              o_3 = 0;
              o_2 = (o_2 + 1);
              if ((o_2 == 10)) {
                o_2 = 0;
                n_1 = (n_1 + 1);
              }
            }
          }
        }
      }
    }
  }
}
