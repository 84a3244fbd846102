//! The key of tokens: the operator's, or one that is made once and kept, so that tokens outlive a restart.

use warren_engine::failure::Failure;
use warren_engine::hub::token::TokenKey;

use super::Web;

/// Under which name the key is kept.
const NAME: &str = "token-key";

pub(super) async fn key(web: &Web) -> Result<&TokenKey, Failure> {
    web.tokens
        .get_or_try_init(|| async {
            if let Some(secret) = &web.hub.settings().instance_key {
                return Ok(TokenKey::new(secret.0.as_bytes()));
            }
            let store = &web.hub.ports().store;
            if let Some(secret) = store.value(NAME).await? {
                return Ok(TokenKey::new(&secret));
            }
            let secret: [u8; 32] = web.random();
            store.keep(NAME, &secret).await?;
            Ok(TokenKey::new(&secret))
        })
        .await
}
