//! Waiting for several things at once.

/// Waits for the first that comes, and does what belongs to it; of two that are there, to the one
/// that stands first. The others are given up.
macro_rules! select {
    (@wait $future:expr) => { $future };
    (@wait $future:expr, $($others:expr),+) => {
        ::smol::future::or(
            ::futures_util::FutureExt::map($future, ::futures_util::future::Either::Left),
            ::futures_util::FutureExt::map(
                $crate::stand_ins::select!(@wait $($others),+),
                ::futures_util::future::Either::Right,
            ),
        )
    };
    (@then $came:expr, $pattern:pat => $then:expr) => {
        match $came { $pattern => $then }
    };
    (@then $came:expr, $pattern:pat => $then:expr, $($patterns:pat => $thens:expr),+) => {
        match $came {
            ::futures_util::future::Either::Left($pattern) => $then,
            ::futures_util::future::Either::Right(came) => {
                $crate::stand_ins::select!(@then came, $($patterns => $thens),+)
            }
        }
    };
    ($($pattern:pat = $future:expr $(, if $wanted:expr)? => $then:expr),+ $(,)?) => {{
        let came = $crate::stand_ins::select!(
            @wait $($crate::stand_ins::when(true $(&& $wanted)?, $future)),+
        )
        .await;
        $crate::stand_ins::select!(@then came, $($pattern => $then),+)
    }};
}

pub(crate) use select;
