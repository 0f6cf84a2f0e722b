//! The unwinder that std links to, without the unwinder.
//!
//! A stripped binary that aborts has neither tables to walk its stack with nor names to show, and yet std's
//! panic message reaches the whole of libunwind, 45 KB. These symbols are found before that library's. Only
//! `initramfs/binary` sets the condition for them, since it alone builds std without tables.
#![expect(unsafe_code, reason = "symbols that std links to by name")]

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI, exception handling, 1.2.
const END_OF_STACK: c_int = 5;

/// What a backtrace asks first; the answer ends it.
// SAFETY: the ABI's name and signature; nothing else in the program defines it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Functions that are called for a stack frame only, and no frame is ever visited.
macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: the ABI's name; nothing else in the program defines it. A call would end the program before
        // its missing parameters and result matter.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called! {
    _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetCFA _Unwind_FindEnclosingFunction
    _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_GetDataRelBase
    _Unwind_SetGR _Unwind_SetIP
}
