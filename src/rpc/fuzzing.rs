//! Bodies of JSON-RPC requests.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::jsonrpc::{CallError, MAX_BATCH, Params, Request, response};
use super::methods;
use crate::types::{Height, PeerIp, Transaction, TxId, codec};

/// One call or a batch, up to where a method works on its parameters.
pub fn jsonrpc(input: &[u8]) {
    match serde_json::from_slice(input) {
        Err(error) => answer(Value::Null, Err(CallError::parse(error))),
        Ok(Value::Array(calls)) => calls.into_iter().take(MAX_BATCH).for_each(call),
        Ok(single) => call(single),
    }
}

fn call(value: Value) {
    let request = match Request::read(value) {
        Ok(request) => request,
        Err((id, error)) => return answer(id, Err(error)),
    };
    let mut again = json!({ "method": request.method, "params": request.params });
    if let Some(id) = &request.id {
        again["id"] = id.clone();
    }
    let again = Request::read(again).expect("a request that was read can be sent");
    assert_eq!(
        (&again.id, &again.method, &again.params),
        (&request.id, &request.method, &request.params)
    );
    let id = request.id.unwrap_or(Value::Null);
    let methods = methods::all();
    let found = methods.iter().find(|one| one.name == request.method);
    let Some(method) = found else {
        return answer(id, Err(CallError::unknown_method(&request.method)));
    };
    for name in method.params {
        let read = || Params::read(request.params.clone(), method.params);
        parameter::<u64>(read(), name);
        parameter::<u8>(read(), name);
        parameter::<u32>(read(), name);
        parameter::<bool>(read(), name);
        parameter::<Height>(read(), name);
        parameter::<PeerIp>(read(), name);
        parameter::<TxId>(read(), name);
        if let Some(text) = parameter::<String>(read(), name)
            && let Ok(bytes) = hex::decode(text)
            && let Ok(transaction) = codec::decode::<Transaction>(&bytes)
        {
            assert_eq!(codec::encode(&transaction), bytes);
        }
    }
    answer(id, Ok(json!({ "params": request.params })));
}

/// A parameter as its type, or the error that is answered.
fn parameter<T: DeserializeOwned>(params: Result<Params, CallError>, name: &str) -> Option<T> {
    match params.and_then(|mut params| params.required(name)) {
        Ok(value) => Some(value),
        Err(error) => {
            answer(Value::Null, Err(error));
            None
        }
    }
}

/// What is answered is JSON, of the call that was made, with a result or an error.
fn answer(id: Value, result: Result<Value, CallError>) {
    let failed = result.is_err();
    let text = response(id.clone(), result).to_string();
    let read: Value = serde_json::from_str(&text).expect("an answer is JSON");
    assert_eq!(read["id"], id);
    assert_eq!(read.get("error").is_some(), failed);
    assert_eq!(read.get("result").is_some(), !failed);
}
