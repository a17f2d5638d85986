//! The proving ground: what the tests need that no real part can show.
