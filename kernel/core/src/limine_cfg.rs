//! limine_cfg
