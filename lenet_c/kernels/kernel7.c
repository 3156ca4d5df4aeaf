// kernel @fc3 = matmul_epilogue (%x_3, %fc3.transpose, %fc3.bias) -> (%fc3) {  # 3,776 bytes
//   %fc3.matmul = matmul(%x_3, %fc3.transpose) : f32[1,10]  # examples/models/lenet.py:26
//   %fc3 = add(%fc3.matmul, %fc3.bias) : f32[1,10]  # examples/models/lenet.py:26
// }
#include <stdint.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4u __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4u __attribute__((vector_size(16), aligned(4), may_alias));
static inline f32x4 irconv_splat_f32x4(float x) { return (f32x4){x, x, x, x}; }
static inline f32x4 irconv_load_part_f32x4(const float *p, int64_t n) {
  f32x4 v = {0};
  __builtin_memcpy(&v, p, (uint64_t)n * sizeof(float));
  return v;
}
static inline void irconv_store_part_f32x4(float *p, f32x4 v, int64_t n) {
  __builtin_memcpy(p, &v, (uint64_t)n * sizeof(float));
}

__attribute__((visibility("hidden"))) void lenet_kernel7_matmul_pack(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  const float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  for (int64_t task = first; task < last; task += 1) {
    __typeof__(&packed[0]) const panel = (packed + (task * 1008));
    const int64_t count = ((10 < 12) ? 10 : 12);
    float kept[1740] __attribute__((aligned(64)));
    const int64_t last = ((144 < 84) ? 144 : 84);
    for (int64_t column = 0; column < count; column += 1) {
      const int64_t place = (column * 84);
      const int64_t run = (column * 145);
      for (int64_t i = 0; i < last; i += 1) {
        kept[(run + i)] = w[(place + i)];
      }
    }
    for (int64_t channel = 0; channel < last; channel += 1) {
      const int64_t row = (channel * 12);
      for (int64_t column_1 = 0; column_1 < count; column_1 += 1) {
        panel[(row + column_1)] = kept[(channel + (column_1 * 145))];
      }
    }
    for (int64_t row_1 = 0; row_1 < 84; row_1 += 1) {
      for (int64_t rest = count; rest < 12; rest += 1) {
        panel[((row_1 * 12) + rest)] = 0x0.0p+0f;
      }
    }
  }
}

__attribute__((visibility("hidden"))) void lenet_kernel7_matmul(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
  float *restrict out = buffers[0];
  const float *restrict x = buffers[1];
  const float *restrict w = buffers[2];
  const float *restrict operand2 = buffers[3];
  const float *restrict packed = buffers[4];
  const int64_t batch = sizes[0];
  (void)out; (void)x; (void)w; (void)operand2; (void)packed; (void)batch; (void)first; (void)last; (void)worker; (void)buffers; (void)sizes;
  const float *rows[4];
  const int64_t chunks = ((batch + 1735) / 1736);
  for (int64_t task = first; task < last; task += 1) {
    const int64_t chunk = (task % chunks);
    const int64_t rest = (task / chunks);
    const int64_t last_block = (((rest + 1) < 1) ? (rest + 1) : 1);
    __typeof__(&packed[0]) const panels = packed;
    __typeof__(&x[0]) const image = x;
    const int64_t start_pixel = (chunk * 1736);
    const int64_t stop_pixel = (((start_pixel + 1736) < batch) ? (start_pixel + 1736) : batch);
    for (int64_t tile = start_pixel; tile < stop_pixel; tile += 4) {
      if (((tile + 4) <= stop_pixel)) {
        __typeof__(&image[0]) const start = (image + (tile * 84));
        rows[0] = start;
        rows[1] = (start + 84);
        rows[2] = (start + 168);
        rows[3] = (start + 252);
      } else {
        for (int64_t p = 0; p < 4; p += 1) {
          const int64_t pixel = (((tile + p) < (stop_pixel - 1)) ? (tile + p) : (stop_pixel - 1));
          rows[p] = (image + (pixel * 84));
        }
      }
      for (int64_t block = rest; block < last_block; block += 1) {
        __typeof__(&panels[0]) const panel = (panels + (block * 1008));
        const int64_t column = (block * 12);
        if (((stop_pixel - tile) == 1)) {
          f32x4 sum0_0 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_1 = irconv_splat_f32x4(0x0.0p+0f);
          f32x4 sum0_2 = irconv_splat_f32x4(0x0.0p+0f);
          const float *const row = rows[0];
          __typeof__(&panel[0]) const weights = panel;
          for (int64_t c = 0; c < 84; c += 1) {
            const f32x4 weight = *(const f32x4u *)(weights + (c * 12));
            const f32x4 weight_1 = *(const f32x4u *)(weights + ((c * 12) + 4));
            const f32x4 weight_2 = *(const f32x4u *)(weights + ((c * 12) + 8));
            const f32x4 value = irconv_splat_f32x4(row[c]);
            sum0_0 = (sum0_0 + (value * weight));
            sum0_1 = (sum0_1 + (value * weight_1));
            sum0_2 = (sum0_2 + (value * weight_2));
          }
          const f32x4 value_1 = *(const f32x4u *)(operand2 + column);
          const f32x4 add = (sum0_0 + value_1);
          *(f32x4u *)(out + (column + (tile * 10))) = add;
          const f32x4 value_2 = *(const f32x4u *)(operand2 + (column + 4));
          const f32x4 add_1 = (sum0_1 + value_2);
          *(f32x4u *)(out + ((column + 4) + (tile * 10))) = add_1;
          const f32x4 value_3 = irconv_load_part_f32x4(operand2 + (column + 8), 2);
          const f32x4 add_2 = (sum0_2 + value_3);
          irconv_store_part_f32x4(out + ((column + 8) + (tile * 10)), add_2, 2);
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
          for (int64_t c_1 = 0; c_1 < 84; c_1 += 1) {
            const f32x4 weight_3 = *(const f32x4u *)(weights_1 + (c_1 * 12));
            const f32x4 weight_4 = *(const f32x4u *)(weights_1 + ((c_1 * 12) + 4));
            const f32x4 weight_5 = *(const f32x4u *)(weights_1 + ((c_1 * 12) + 8));
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
            *(f32x4u *)(out + (column + (tile * 10))) = add_3;
            const f32x4 value_9 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_4 = (sum1_0 + value_9);
            *(f32x4u *)(out + (column + ((tile + 1) * 10))) = add_4;
            const f32x4 value_10 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_5 = (sum2_0 + value_10);
            *(f32x4u *)(out + (column + ((tile + 2) * 10))) = add_5;
            const f32x4 value_11 = *(const f32x4u *)(operand2 + column);
            const f32x4 add_6 = (sum3_0 + value_11);
            *(f32x4u *)(out + (column + ((tile + 3) * 10))) = add_6;
            const f32x4 value_12 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_7 = (sum0_1_1 + value_12);
            *(f32x4u *)(out + ((column + 4) + (tile * 10))) = add_7;
            const f32x4 value_13 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_8 = (sum1_1 + value_13);
            *(f32x4u *)(out + ((column + 4) + ((tile + 1) * 10))) = add_8;
            const f32x4 value_14 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_9 = (sum2_1 + value_14);
            *(f32x4u *)(out + ((column + 4) + ((tile + 2) * 10))) = add_9;
            const f32x4 value_15 = *(const f32x4u *)(operand2 + (column + 4));
            const f32x4 add_10 = (sum3_1 + value_15);
            *(f32x4u *)(out + ((column + 4) + ((tile + 3) * 10))) = add_10;
            const f32x4 value_16 = irconv_load_part_f32x4(operand2 + (column + 8), 2);
            const f32x4 add_11 = (sum0_2_1 + value_16);
            irconv_store_part_f32x4(out + ((column + 8) + (tile * 10)), add_11, 2);
            const f32x4 value_17 = irconv_load_part_f32x4(operand2 + (column + 8), 2);
            const f32x4 add_12 = (sum1_2 + value_17);
            irconv_store_part_f32x4(out + ((column + 8) + ((tile + 1) * 10)), add_12, 2);
            const f32x4 value_18 = irconv_load_part_f32x4(operand2 + (column + 8), 2);
            const f32x4 add_13 = (sum2_2 + value_18);
            irconv_store_part_f32x4(out + ((column + 8) + ((tile + 2) * 10)), add_13, 2);
            const f32x4 value_19 = irconv_load_part_f32x4(operand2 + (column + 8), 2);
            const f32x4 add_14 = (sum3_2 + value_19);
            irconv_store_part_f32x4(out + ((column + 8) + ((tile + 3) * 10)), add_14, 2);
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
              if ((column < 10)) {
                const int64_t count_1 = (((10 - column) < 4) ? (10 - column) : 4);
                const f32x4 sum = *(const f32x4u *)(kept + (p_1 * 12));
                const f32x4 value_20 = irconv_load_part_f32x4(operand2 + column, count_1);
                const f32x4 add_15 = (sum + value_20);
                irconv_store_part_f32x4(out + (column + (n * 10)), add_15, count_1);
              }
              const int64_t at = (column + 4);
              if ((at < 10)) {
                const int64_t count_2 = (((10 - at) < 4) ? (10 - at) : 4);
                const f32x4 sum_1 = *(const f32x4u *)(kept + ((p_1 * 12) + 4));
                const f32x4 value_21 = irconv_load_part_f32x4(operand2 + at, count_2);
                const f32x4 add_16 = (sum_1 + value_21);
                irconv_store_part_f32x4(out + (at + (n * 10)), add_16, count_2);
              }
              const int64_t at_1 = (column + 8);
              if ((at_1 < 10)) {
                const int64_t count_3 = (((10 - at_1) < 4) ? (10 - at_1) : 4);
                const f32x4 sum_2 = *(const f32x4u *)(kept + ((p_1 * 12) + 8));
                const f32x4 value_22 = irconv_load_part_f32x4(operand2 + at_1, count_3);
                const f32x4 add_17 = (sum_2 + value_22);
                irconv_store_part_f32x4(out + (at_1 + (n * 10)), add_17, count_3);
              }
              n = (n + 1);
            }
          }
        }
      }
    }
  }
}
