#include "core/auth.h"

#include <errno.h>
#include <string.h>

#include <sodium.h>

int ns_auth_identity(struct ns_identity *out, const uint8_t random[48])
{
    memcpy(out->secret_key, random, sizeof out->secret_key);
    memcpy(out->instance, random + sizeof out->secret_key, sizeof out->instance);
    if (crypto_scalarmult_base(out->public_key, out->secret_key) != 0)
        return -EINVAL;
    return 0;
}

int ns_auth_master(struct ns_master *out, const uint8_t secret_key[32], const uint8_t peer_key[32],
                   const uint8_t client_key[32], const uint8_t server_key[32], const uint8_t *psk,
                   size_t psk_bytes)
{
    static const uint8_t label[] = { 'n', 'a', 'm', 'e', 's', 'o', 'c', 'k', 'e', 't', ' ', 'v', '2' };
    crypto_generichash_state hash;
    uint8_t shared[32];

    memset(out, 0, sizeof *out);
    if (psk_bytes > NS_PSK_BYTES_MAX || (psk_bytes && !psk))
        return -EINVAL;
    /* fails when the result is zero, which a peer could force (RFC 7748, 6.1) */
    if (crypto_scalarmult(shared, secret_key, peer_key) != 0)
        return -EBADMSG;
    crypto_generichash_init(&hash, psk, psk_bytes, sizeof out->key);
    crypto_generichash_update(&hash, label, sizeof label);
    crypto_generichash_update(&hash, shared, sizeof shared);
    crypto_generichash_update(&hash, client_key, 32);
    crypto_generichash_update(&hash, server_key, 32);
    crypto_generichash_final(&hash, out->key, sizeof out->key);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(&hash, sizeof hash);
    return 0;
}

uint16_t ns_auth_key_check(const uint8_t *psk, size_t psk_bytes, const uint8_t instance[16],
                           const uint8_t server_key[32])
{
    static const uint8_t label[] = { 'k', 'e', 'y', ' ', 'c', 'h', 'e', 'c', 'k' };
    crypto_generichash_state hash;
    uint8_t out[crypto_generichash_BYTES_MIN];

    if (psk_bytes == 0)
        return 0;
    crypto_generichash_init(&hash, psk, psk_bytes, sizeof out);
    crypto_generichash_update(&hash, label, sizeof label);
    crypto_generichash_update(&hash, instance, 16);
    crypto_generichash_update(&hash, server_key, 32);
    crypto_generichash_final(&hash, out, sizeof out);
    sodium_memzero(&hash, sizeof hash);
    uint16_t check = (uint16_t)(out[0] << 8 | out[1]);
    return check ? check : 1;
}

void ns_auth_session_keys(struct ns_session_keys *out, const struct ns_master *master,
                          const uint8_t session_id[16], const uint8_t instance[16], uint8_t version)
{
    static const uint8_t label[] = { 's', 'e', 's', 's', 'i', 'o', 'n' };
    crypto_generichash_state hash;
    uint8_t both[64];

    crypto_generichash_init(&hash, master->key, sizeof master->key, sizeof both);
    crypto_generichash_update(&hash, label, sizeof label);
    crypto_generichash_update(&hash, session_id, 16);
    crypto_generichash_update(&hash, instance, 16);
    crypto_generichash_update(&hash, &version, 1);
    crypto_generichash_final(&hash, both, sizeof both);
    memcpy(out->c2s, both, sizeof out->c2s);
    memcpy(out->s2c, both + sizeof out->c2s, sizeof out->s2c);
    sodium_memzero(both, sizeof both);
    sodium_memzero(&hash, sizeof hash);
}

void ns_auth_tag(uint8_t tag[NS_TAG_BYTES], const uint8_t key[32], const uint8_t nonce[16],
                 const uint8_t *packet, size_t packet_bytes)
{
    crypto_generichash_state hash;

    crypto_generichash_init(&hash, key, 32, NS_TAG_BYTES);
    if (nonce)
        crypto_generichash_update(&hash, nonce, 16);
    crypto_generichash_update(&hash, packet, packet_bytes - NS_TAG_BYTES);
    crypto_generichash_final(&hash, tag, NS_TAG_BYTES);
    sodium_memzero(&hash, sizeof hash);
}

void ns_auth_sign(uint8_t *packet, size_t packet_bytes, const uint8_t key[32], const uint8_t nonce[16])
{
    ns_auth_tag(packet + packet_bytes - NS_TAG_BYTES, key, nonce, packet, packet_bytes);
}

bool ns_auth_verify(const uint8_t key[32], const uint8_t nonce[16], const uint8_t *packet,
                    size_t packet_bytes)
{
    uint8_t tag[NS_TAG_BYTES];

    if (packet_bytes < NS_TAG_BYTES)
        return false;
    ns_auth_tag(tag, key, nonce, packet, packet_bytes);
    return sodium_memcmp(tag, packet + packet_bytes - NS_TAG_BYTES, sizeof tag) == 0;
}
