// kernel @x_2 = matmul_epilogue (%x_1, %fc1.transpose, %fc1.bias) -> (%x_2) {  # 194,560 bytes
//   %fc1.matmul = matmul(%x_1, %fc1.transpose) : f32[1,120]  # examples/models/lenet.py:24
//   %fc1 = add(%fc1.matmul, %fc1.bias) : f32[1,120]  # examples/models/lenet.py:24
//   %x_2 = relu(%fc1) : f32[1,120]  # examples/models/lenet.py:24
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

__attribute__((visibility("hidden"))) void lenet_kernel5_matmul_pack(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  const float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  for (int64_t task = first; task < last; task += 1) {
    const int64_t first_column = ((task % 10) * 12);
    const int64_t start = (first_column * 400);
    __typeof__(&packed[0]) const panel = (packed + (task * 4800));
    float kept[1740] __attribute__((aligned(64)));
    for (int64_t slice = 0; slice < 400; slice += 144) {
      const int64_t last = (((slice + 144) < 400) ? (slice + 144) : 400);
      for (int64_t column = 0; column < 12; column += 1) {
        const int64_t place = ((start + (column * 400)) + slice);
        const int64_t run = (column * 145);
        const int64_t channels = (last - slice);
        for (int64_t i = 0; i < channels; i += 1) {
          kept[(run + i)] = w[(place + i)];
        }
      }
      for (int64_t channel = slice; channel < last; channel += 1) {
        const int64_t row = (channel * 12);
        const int64_t at = (channel - slice);
        for (int64_t column_1 = 0; column_1 < 12; column_1 += 1) {
          panel[(row + column_1)] = kept[(at + (column_1 * 145))];
        }
      }
    }
  }
}

__attribute__((visibility("hidden"))) void lenet_kernel5_matmul(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  const float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  const float *rows[4];
  const int64_t chunks = ((batch + 35) / 36);
  for (int64_t task = first; task < last; task += 1) {
    const int64_t chunk = (task % chunks);
    const int64_t rest = (task / chunks);
    const int64_t first_block = (rest * 10);
    const int64_t last_block = (((first_block + 10) < 10) ? (first_block + 10) : 10);
    __typeof__(&packed[0]) const panels = packed;
    __typeof__(&x[0]) const image = x;
    const int64_t start_pixel = (chunk * 36);
    const int64_t stop_pixel = (((start_pixel + 36) < batch) ? (start_pixel + 36) : batch);
    for (int64_t tile = start_pixel; tile < stop_pixel; tile += 4) {
      if (((tile + 4) <= stop_pixel)) {
        __typeof__(&image[0]) const start = (image + (tile * 400));
        rows[0] = start;
        rows[1] = (start + 400);
        rows[2] = (start + 800);
        rows[3] = (start + 1200);
      } else {
        for (int64_t p = 0; p < 4; p += 1) {
          const int64_t pixel = (((tile + p) < (stop_pixel - 1)) ? (tile + p) : (stop_pixel - 1));
          rows[p] = (image + (pixel * 400));
        }
      }
      for (int64_t block = first_block; block < last_block; block += 1) {
        __typeof__(&panels[0]) const panel = (panels + (block * 4800));
        const int64_t column = (block * 12);
        if (((stop_pixel - tile) == 1)) {
          f32x4 sum0_0 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_2 = irconv_splat_f32x4(0x0.0p+0f);
          const float *const row = rows[0];
          __typeof__(&panel[0]) const weights = panel;
          for (int64_t c = 0; c < 400; c += 1) {
            const f32x4 weight = *(const f32x4u *)(weights + (c * 12));
            const f32x4 weight_1 = *(const f32x4u *)(weights + ((c * 12) + 4));
            const f32x4 weight_2 = *(const f32x4u *)(weights + ((c * 12) + 8));
            __builtin_prefetch(weights + ((c * 12) + 128));
            __builtin_prefetch(weights + (((c * 12) + 4) + 128));
            __builtin_prefetch(weights + (((c * 12) + 8) + 128));
            const f32x4 value = irconv_splat_f32x4(row[c]);
            sum0_0 = (sum0_0 + (value * weight));
            sum0_1 = (sum0_1 + (value * weight_1));
            sum0_2 = (sum0_2 + (value * weight_2));
          }
          const f32x4 value_1 = *(const f32x4u *)(operand2 + column);
          const f32x4 add = (sum0_0 + value_1);
          const f32x4 relu = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add);
          *(f32x4u *)(out + (column + (tile * 120))) = relu;
          const f32x4 value_2 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_1 = (sum0_1 + value_2);
          const f32x4 relu_1 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_1);
          *(f32x4u *)(out + ((column + 4) + (tile * 120))) = relu_1;
          const f32x4 value_3 = *(const f32x4u *)(operand2 + (column + 8));
          const f32x4 add_2 = (sum0_2 + value_3);
          const f32x4 relu_2 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_2);
          *(f32x4u *)(out + ((column + 8) + (tile * 120))) = relu_2;
        } else {
          f32x4 sum0_0_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_1_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_2_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum1_0 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum1_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum1_2 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum2_0 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum2_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum2_2 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum3_0 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum3_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum3_2 = irconv_splat_f32x4(0x0.0p+0f);
          const float *const row_1 = rows[0];
          const float *const row_2 = rows[1];
          const float *const row_3 = rows[2];
          const float *const row_4 = rows[3];
          __typeof__(&panel[0]) const weights_1 = panel;
          for (int64_t c_1 = 0; c_1 < 400; c_1 += 1) {
            const f32x4 weight_3 = *(const f32x4u *)(weights_1 + (c_1 * 12));
            const f32x4 weight_4 = *(const f32x4u *)(weights_1 + ((c_1 * 12) + 4));
            const f32x4 weight_5 = *(const f32x4u *)(weights_1 + ((c_1 * 12) + 8));
            __builtin_prefetch(weights_1 + ((c_1 * 12) + 2048));
            __builtin_prefetch(weights_1 + (((c_1 * 12) + 4) + 2048));
            __builtin_prefetch(weights_1 + (((c_1 * 12) + 8) + 2048));
            const f32x4 value_4 = irconv_splat_f32x4(row_1[c_1]);
            sum0_0_1 = (sum0_0_1 + (value_4 * weight_3));
            sum0_1_1 = (sum0_1_1 + (value_4 * weight_4));
            sum0_2_1 = (sum0_2_1 + (value_4 * weight_5));
            const f32x4 value_5 = irconv_splat_f32x4(row_2[c_1]);
            sum1_0 = (sum1_0 + (value_5 * weight_3));
            sum1_1 = (sum1_1 + (value_5 * weight_4));
            sum1_2 = (sum1_2 + (value_5 * weight_5));
            const f32x4 value_6 = irconv_splat_f32x4(row_3[c_1]);
            sum2_0 = (sum2_0 + (value_6 * weight_3));
            sum2_1 = (sum2_1 + (value_6 * weight_4));
            sum2_2 = (sum2_2 + (value_6 * weight_5));
            const f32x4 value_7 = irconv_splat_f32x4(row_4[c_1]);
            sum3_0 = (sum3_0 + (value_7 * weight_3));
            sum3_1 = (sum3_1 + (value_7 * weight_4));
            sum3_2 = (sum3_2 + (value_7 * weight_5));
          }
          if (((tile + 4) <= stop_pixel)) {
            const f32x4 value_8 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_3 = (sum0_0_1 + value_8);
            const f32x4 relu_3 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_3);
            *(f32x4u *)(out + (column + (tile * 120))) = relu_3;
            const f32x4 value_9 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_4 = (sum1_0 + value_9);
            const f32x4 relu_4 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_4);
            *(f32x4u *)(out + (column + ((tile + 1) * 120))) = relu_4;
            const f32x4 value_10 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_5 = (sum2_0 + value_10);
            const f32x4 relu_5 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_5);
            *(f32x4u *)(out + (column + ((tile + 2) * 120))) = relu_5;
            const f32x4 value_11 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_6 = (sum3_0 + value_11);
            const f32x4 relu_6 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_6);
            *(f32x4u *)(out + (column + ((tile + 3) * 120))) = relu_6;
            const f32x4 value_12 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_7 = (sum0_1_1 + value_12);
            const f32x4 relu_7 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_7);
            *(f32x4u *)(out + ((column + 4) + (tile * 120))) = relu_7;
            const f32x4 value_13 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_8 = (sum1_1 + value_13);
            const f32x4 relu_8 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_8);
            *(f32x4u *)(out + ((column + 4) + ((tile + 1) * 120))) = relu_8;
            const f32x4 value_14 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_9 = (sum2_1 + value_14);
            const f32x4 relu_9 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_9);
            *(f32x4u *)(out + ((column + 4) + ((tile + 2) * 120))) = relu_9;
            const f32x4 value_15 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_10 = (sum3_1 + value_15);
            const f32x4 relu_10 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_10);
            *(f32x4u *)(out + ((column + 4) + ((tile + 3) * 120))) = relu_10;
            const f32x4 value_16 = *(const f32x4u *)(operand2 + (column + 8));
            const f32x4 add_11 = (sum0_2_1 + value_16);
            const f32x4 relu_11 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_11);
            *(f32x4u *)(out + ((column + 8) + (tile * 120))) = relu_11;
            const f32x4 value_17 = *(const f32x4u *)(operand2 + (column + 8));
            const f32x4 add_12 = (sum1_2 + value_17);
            const f32x4 relu_12 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_12);
            *(f32x4u *)(out + ((column + 8) + ((tile + 1) * 120))) = relu_12;
            const f32x4 value_18 = *(const f32x4u *)(operand2 + (column + 8));
            const f32x4 add_13 = (sum2_2 + value_18);
            const f32x4 relu_13 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_13);
            *(f32x4u *)(out + ((column + 8) + ((tile + 2) * 120))) = relu_13;
            const f32x4 value_19 = *(const f32x4u *)(operand2 + (column + 8));
            const f32x4 add_14 = (sum3_2 + value_19);
            const f32x4 relu_14 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_14);
            *(f32x4u *)(out + ((column + 8) + ((tile + 3) * 120))) = relu_14;
          } else {
            float kept[48] __attribute__((aligned(64)));
            *(f32x4u *)(kept + 0) = sum0_0_1;
            *(f32x4u *)(kept + 4) = sum0_1_1;
            *(f32x4u *)(kept + 8) = sum0_2_1;
            *(f32x4u *)(kept + 12) = sum1_0;
            *(f32x4u *)(kept + 16) = sum1_1;
            *(f32x4u *)(kept + 20) = sum1_2;
            *(f32x4u *)(kept + 24) = sum2_0;
            *(f32x4u *)(kept + 28) = sum2_1;
            *(f32x4u *)(kept + 32) = sum2_2;
            *(f32x4u *)(kept + 36) = sum3_0;
            *(f32x4u *)(kept + 40) = sum3_1;
            *(f32x4u *)(kept + 44) = sum3_2;
            int64_t n = tile;
            const int64_t count = (((stop_pixel - tile) < 4) ? (stop_pixel - tile) : 4);
            for (int64_t p_1 = 0; p_1 < count; p_1 += 1) {
              const f32x4 sum = *(const f32x4u *)(kept + (p_1 * 12));
              const f32x4 value_20 = *(const f32x4u *)(operand2 + column);
              const f32x4 add_15 = (sum + value_20);
              const f32x4 relu_15 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_15);
              *(f32x4u *)(out + (column + (n * 120))) = relu_15;
              const int64_t at = (column + 4);
              const f32x4 sum_1 = *(const f32x4u *)(kept + ((p_1 * 12) + 4));
              const f32x4 value_21 = *(const f32x4u *)(operand2 + at);
              const f32x4 add_16 = (sum_1 + value_21);
              const f32x4 relu_16 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_16);
              *(f32x4u *)(out + (at + (n * 120))) = relu_16;
              const int64_t at_1 = (column + 8);
              const f32x4 sum_2 = *(const f32x4u *)(kept + ((p_1 * 12) + 8));
              const f32x4 value_22 = *(const f32x4u *)(operand2 + at_1);
              const f32x4 add_17 = (sum_2 + value_22);
              const f32x4 relu_17 = irconv_larger_f32x4(irconv_splat_f32x4(0x0.0p+0f), add_17);
              *(f32x4u *)(out + (at_1 + (n * 120))) = relu_17;
              n = (n + 1);
            }
          }
        }
      }
    }
  }
}
