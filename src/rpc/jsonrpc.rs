//! JSON-RPC 2.0: requests, parameters by position or name, errors, and the table of methods.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The most calls in one batch.
pub(super) const MAX_BATCH: usize = 50;

/// Whether a method changes the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anyone on this machine may call it.
    Read,
    /// It needs the cookie.
    Change,
}

/// What a call gives in the end.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Value, CallError>> + Send>>;

/// One method of the table.
pub(super) struct Method<C> {
    pub(super) name: &'static str,
    pub(super) access: Access,
    /// Names of the parameters, in their order by position; others that it goes by, as in Bitcoin,
    /// stand behind the first: `block|blockhash`.
    pub(super) params: &'static [&'static str],
    /// One sentence.
    pub(super) help: &'static str,
    pub(super) call: fn(Arc<C>, Params) -> Answer,
}

/// An error as the caller sees it. Codes below -32000 are JSON-RPC's, small ones Bitcoin's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CallError {
    pub(super) code: i32,
    pub(super) message: String,
}

impl CallError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(super) fn parse(detail: impl std::fmt::Display) -> Self {
        Self::new(-32700, format!("the request is not JSON: {detail}"))
    }

    pub(super) fn invalid_request(detail: &str) -> Self {
        Self::new(-32600, format!("not a JSON-RPC 2.0 request: {detail}"))
    }

    pub(super) fn unknown_method(name: &str) -> Self {
        let name: String = name.chars().take(60).collect();
        Self::new(
            -32601,
            format!("no method {name:?}; \"help\" lists them all"),
        )
    }

    pub(super) fn invalid_params(detail: impl Into<String>) -> Self {
        Self::new(-32602, detail)
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(-32603, error.to_string())
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            -32001,
            "this method changes the node: it needs the content of rpc.cookie as HTTP Basic",
        )
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(-32002, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(-5, detail)
    }

    pub(super) fn out_of_range(detail: impl Into<String>) -> Self {
        Self::new(-8, detail)
    }

    pub(super) fn cannot_decode(detail: impl Into<String>) -> Self {
        Self::new(-22, detail)
    }

    pub(super) fn rejected(detail: impl Into<String>) -> Self {
        Self::new(-26, detail)
    }

    pub(super) fn not_connected(detail: impl Into<String>) -> Self {
        Self::new(-29, detail)
    }

    /// An address that is none, or one that is not banned.
    pub(super) fn wrong_address(detail: impl Into<String>) -> Self {
        Self::new(-30, detail)
    }
}

/// The name by which a parameter is shown and kept.
pub(super) fn first_name(names: &str) -> &str {
    names.split('|').next().unwrap_or(names)
}

/// The parameters of one call, by name.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, Value>);

impl Params {
    /// Names positional parameters and refuses unknown names and surplus values.
    pub(super) fn read(given: Option<Value>, names: &[&str]) -> Result<Self, CallError> {
        let takes = || match names {
            [] => "it takes none".to_owned(),
            names => {
                let names: Vec<&str> = names.iter().map(|name| first_name(name)).collect();
                format!("it takes: {}", names.join(", "))
            }
        };
        match given {
            None => Ok(Self(BTreeMap::new())),
            Some(Value::Array(values)) if values.len() > names.len() => {
                let detail = format!("{} parameters are too many; {}", values.len(), takes());
                Err(CallError::invalid_params(detail))
            }
            Some(Value::Array(values)) => {
                let named = names.iter().map(|name| first_name(name).to_owned());
                Ok(Self(named.zip(values).collect()))
            }
            Some(Value::Object(values)) => {
                let mut params = BTreeMap::new();
                for (key, value) in values {
                    let mut names = names.iter();
                    let Some(name) = names.find(|name| name.split('|').any(|one| one == key))
                    else {
                        let detail = format!("no parameter {key:?}; {}", takes());
                        return Err(CallError::invalid_params(detail));
                    };
                    let name = first_name(name);
                    if params.insert(name.to_owned(), value).is_some() {
                        let detail = format!("parameter {name:?} is given twice");
                        return Err(CallError::invalid_params(detail));
                    }
                }
                Ok(Self(params))
            }
            Some(_) => Err(CallError::invalid_request(
                "params must be a list or an object",
            )),
        }
    }

    /// No parameters.
    pub(super) fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// One parameter.
    pub(super) fn one(name: &str, value: Value) -> Self {
        Self(BTreeMap::from([(name.to_owned(), value)]))
    }

    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, CallError> {
        self.optional(name)?
            .ok_or_else(|| CallError::invalid_params(format!("parameter {name:?} is missing")))
    }

    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, CallError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| CallError::invalid_params(format!("parameter {name:?}: {error}"))),
        }
    }

    /// How much is told: 0, 1 or 2, or as older clients of Bitcoin say it, false for 0 and true for 1.
    pub(super) fn verbosity(&mut self, name: &str) -> Result<Option<u8>, CallError> {
        if let Some(Value::Bool(verbose)) = self.0.get(name) {
            return Ok(Some(u8::from(*verbose)));
        }
        match self.optional::<u8>(name)? {
            Some(3..) => {
                let detail = format!("{name} must be 0, 1 or 2, or true or false");
                Err(CallError::invalid_params(detail))
            }
            level => Ok(level),
        }
    }
}

/// One call, taken apart.
#[derive(Debug)]
pub(super) struct Request {
    /// `None` for a notification, which gets no answer.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    pub(super) params: Option<Value>,
}

impl Request {
    /// Takes a JSON value apart. Like Bitcoin's, the member "jsonrpc" may be missing; if it is
    /// there, it must say "2.0" (or "1.0", which older clients send).
    pub(super) fn read(value: Value) -> Result<Self, (Value, CallError)> {
        let Value::Object(mut members) = value else {
            let error = CallError::invalid_request("a call must be an object");
            return Err((Value::Null, error));
        };
        let id = members.remove("id");
        let answer_to = id.clone().unwrap_or(Value::Null);
        let refuse = |detail| Err((answer_to.clone(), CallError::invalid_request(detail)));
        // A number of another kind would not come back as it was sent, and the caller would not know its answer.
        let comes_back = |id: &Value| match id {
            Value::Null | Value::String(_) => true,
            Value::Number(number) => !number.is_f64(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        if !id.as_ref().is_none_or(comes_back) {
            let detail = "id must be a text, a whole number of at most 64 bits, or null";
            return Err((Value::Null, CallError::invalid_request(detail)));
        }
        match members.remove("jsonrpc") {
            None => {}
            Some(Value::String(version)) if version == "2.0" || version == "1.0" => {}
            Some(_) => return refuse("jsonrpc must be \"2.0\""),
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return refuse("method must be a text");
        };
        Ok(Self {
            id,
            method,
            params: members.remove("params").filter(|params| !params.is_null()),
        })
    }
}

/// The answer to a call.
pub(super) fn response(id: Value, result: Result<Value, CallError>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        Err(error) => json!({ "jsonrpc": "2.0", "error": error, "id": id }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: Value) -> Result<Params, CallError> {
        Params::read(Some(value), &["height", "verbosity"])
    }

    #[test]
    fn parameters_come_by_position_or_by_name() {
        for given in [json!([7, 2]), json!({ "verbosity": 2, "height": 7 })] {
            let mut params = params(given).unwrap();
            assert_eq!(params.required::<u64>("height").unwrap(), 7);
            assert_eq!(params.optional::<u8>("verbosity").unwrap(), Some(2));
        }
        let mut none = params(json!([])).unwrap();
        assert_eq!(none.optional::<u8>("verbosity").unwrap(), None);
        let error = none.required::<u64>("height").unwrap_err();
        assert_eq!(error.message, "parameter \"height\" is missing");
    }

    #[test]
    fn a_parameter_goes_by_bitcoins_names_too() {
        let names = ["block|blockhash", "verbosity|verbose"];
        let read = |given| Params::read(Some(given), &names);
        for given in [
            json!(["ab", true]),
            json!({ "blockhash": "ab", "verbose": true }),
            json!({ "block": "ab", "verbosity": 1 }),
        ] {
            let mut params = read(given).unwrap();
            assert_eq!(params.required::<String>("block").unwrap(), "ab");
            assert_eq!(params.verbosity("verbosity").unwrap(), Some(1));
        }
        let mut quiet = read(json!({ "verbose": false })).unwrap();
        assert_eq!(quiet.verbosity("verbosity").unwrap(), Some(0));
        assert_eq!(read(json!([])).unwrap().verbosity("verbosity"), Ok(None));
        let mut loud = read(json!({ "verbose": 3 })).unwrap();
        assert_eq!(loud.verbosity("verbosity").unwrap_err().code, -32602);
        let twice = read(json!({ "block": 1, "blockhash": "ab" })).unwrap_err();
        assert_eq!(twice.message, "parameter \"block\" is given twice");
        let error = read(json!({ "hash": 1 })).unwrap_err();
        assert_eq!(
            error.message,
            "no parameter \"hash\"; it takes: block, verbosity"
        );
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert_eq!(params(json!([1, 2, 3])).unwrap_err().code, -32602);
        let error = params(json!({ "hight": 1 })).unwrap_err();
        assert_eq!(
            error.message,
            "no parameter \"hight\"; it takes: height, verbosity"
        );
        assert_eq!(params(json!("x")).unwrap_err().code, -32600);
        let mut wrong = params(json!(["x"])).unwrap();
        assert_eq!(wrong.required::<u64>("height").unwrap_err().code, -32602);
    }

    #[test]
    fn calls_are_taken_apart_and_malformed_ones_keep_their_id() {
        let request = Request::read(json!({ "jsonrpc": "2.0", "method": "stop", "id": 3 }));
        let request = request.unwrap();
        assert_eq!(
            (request.method.as_str(), request.id),
            ("stop", Some(json!(3)))
        );
        let notification = Request::read(json!({ "method": "stop" })).unwrap();
        assert_eq!(notification.id, None);
        for (wrong, id) in [
            (json!({ "id": 3 }), json!(3)),
            (
                json!({ "jsonrpc": "3", "method": "x", "id": "a" }),
                json!("a"),
            ),
            (json!({ "method": "x", "id": {} }), Value::Null),
            (json!({ "method": "x", "id": 0.5 }), Value::Null),
            (json!({ "method": "x", "id": 1e300 }), Value::Null),
            (json!(5), Value::Null),
        ] {
            let (answer_to, error) = Request::read(wrong).unwrap_err();
            assert_eq!((answer_to, error.code), (id, -32600));
        }
    }
}
