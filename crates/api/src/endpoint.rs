//! The table of endpoints. The rows of each subject are in `routes`, beside the functions that they call.

use crate::{
    ApiState,
    answer::Answer,
    args::Args,
    openapi,
    params::{self, Param},
    routes,
};
use axum::http::Method;
use futures_util::future::{BoxFuture, FutureExt};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::{future::Future, sync::LazyLock};

/// The context of a request, besides its parameters.
pub(crate) struct Call {
    pub(crate) state: ApiState,
    /// The path's variable part: a VM's, node's or token's name.
    pub(crate) subject: String,
    /// Whether another daemon forwarded it. It is then not forwarded again, to avoid loops while the views of the
    /// daemons differ.
    pub(crate) forwarded: bool,
    /// Whether it accepts a stream of events.
    pub(crate) streams: bool,
    /// The id of the last event of such a stream that the client has.
    pub(crate) last_event: Option<String>,
}

/// The form of a successful response.
pub(crate) enum Answers {
    /// JSON with this schema.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// A stream of JSON objects, one per line.
    Lines,
}

type Run = dyn Fn(Call, Args) -> BoxFuture<'static, Answer> + Send + Sync;

/// One path and method.
pub struct Endpoint {
    /// GET, POST, ...
    pub method: Method,
    /// The path below `/api/v1`; `{x}` is the variable part.
    pub path: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Whether a token is needed.
    pub token: bool,
    /// Its parameters.
    pub params: Vec<Param>,
    pub(crate) answers: Answers,
    /// Whether it can wait, and so may answer 504.
    pub(crate) waits: bool,
    /// Whether it returns a log: forwarded to the node that has it, and followed on request.
    pub(crate) follows: bool,
    run: Box<Run>,
}

impl Endpoint {
    /// An endpoint whose function takes a request of type `R`.
    fn new<R, F>(method: Method, path: &'static str, about: &'static str, run: fn(Call, R) -> F) -> Endpoint
    where
        R: DeserializeOwned + JsonSchema + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let run = move |call: Call, args: Args| match args.request::<R>() {
            Ok(request) => run(call, request).boxed(),
            Err(refused) => std::future::ready(Err(refused)).boxed(),
        };
        Endpoint {
            method,
            path,
            about,
            token: true,
            params: params::of::<R>(),
            answers: Answers::Lines,
            waits: false,
            follows: false,
            run: Box::new(run),
        }
    }

    /// Sets the type of the JSON response.
    pub(crate) fn answers<A: JsonSchema>(self) -> Endpoint {
        Endpoint { answers: Answers::Json(|generator| generator.subschema_for::<A>()), ..self }
    }

    /// Makes the endpoint usable without a token.
    pub(crate) fn open(self) -> Endpoint {
        Endpoint { token: false, ..self }
    }

    /// Declares that the endpoint can wait for the outcome.
    pub(crate) fn waits(self) -> Endpoint {
        Endpoint { waits: true, ..self }
    }

    /// Declares that the endpoint returns a log, on whichever node that is, and can follow it.
    pub(crate) fn follows(self) -> Endpoint {
        Endpoint { follows: true, ..self }
    }

    /// Handles a request with checked parameters.
    pub(crate) fn run(&self, call: Call, args: Args) -> impl Future<Output = Answer> + use<> {
        (self.run)(call, args)
    }
}

macro_rules! methods {
    ($($name:ident $method:ident),+) => {
        $(
            /// An endpoint with this method. It answers with lines, unless [`Endpoint::answers`] is called.
            pub(crate) fn $name<R, F>(path: &'static str, about: &'static str, run: fn(Call, R) -> F) -> Endpoint
            where
                R: DeserializeOwned + JsonSchema + 'static,
                F: Future<Output = Answer> + Send + 'static,
            {
                Endpoint::new(Method::$method, path, about, run)
            }
        )+
    };
}
methods!(get GET, post POST, put PUT, delete DELETE);

/// All endpoints.
pub static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    let subjects = [
        openapi::endpoints(),
        routes::cluster::endpoints(),
        routes::events::endpoints(),
        routes::node::endpoints(),
        routes::fence::endpoints(),
        routes::vm::endpoints(),
        routes::vm::import::endpoints(),
        routes::vm::meta::endpoints(),
        routes::vm::moves::endpoints(),
        routes::token::endpoints(),
    ];
    subjects.into_iter().flatten().collect()
});

/// The name of a field of a request struct, checked at compile time.
macro_rules! field {
    ($request:ident.$field:ident) => {{
        let _ = |request: &$request| std::mem::size_of_val(&request.$field);
        stringify!($field)
    }};
}
pub(crate) use field;
