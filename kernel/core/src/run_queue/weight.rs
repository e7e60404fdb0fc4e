//! How much of a CPU a nice level is worth. Anyone may ask.

/// Weight of nice 0; a nice level is a factor of 5/4.
pub const NICE_0_WEIGHT: u32 = 1024;

const NICE_WEIGHTS: [u32; 40] = nice_weights();

const fn nice_weights() -> [u32; 40] {
    let mut table = [0; 40];
    let mut i = 0;
    while i < 40 {
        // 16 more bits while multiplying, rounded at the end.
        let mut w = (NICE_0_WEIGHT as u64) << 16;
        let mut n = i as i32 - 20;
        while n < 0 {
            w = w * 5 / 4;
            n += 1;
        }
        while n > 0 {
            w = w * 4 / 5;
            n -= 1;
        }
        table[i] = ((w + (1 << 15)) >> 16) as u32;
        i += 1;
    }
    table
}

/// Weight of a nice level, -20 to 19; others are taken as the nearest.
pub const fn nice_weight(nice: i8) -> u32 {
    let i = if nice < -20 {
        0
    } else if nice > 19 {
        39
    } else {
        nice as i32 + 20
    };
    NICE_WEIGHTS[i as usize]
}
