/*
 * Keys and tags of version 2 (docs/protocol.md, "Keys"). X25519 (RFC 7748) and
 * BLAKE2b (RFC 7693), both libsodium's.
 *
 * Pure: randomness comes in as an argument, nothing is kept, all memory is the
 * caller's, who also wipes what is secret (sodium_memzero). Every function may be
 * called from any thread. They work without sodium_init().
 */
#ifndef NS_CORE_AUTH_H
#define NS_CORE_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_TAG_BYTES     16 /* at the end of every tagged packet */
#define NS_PSK_BYTES_MAX 64

/* What a process is known by, made in one go: a new key pair is a new instance. */
struct ns_identity {
    uint8_t public_key[32];
    uint8_t secret_key[32];
    uint8_t instance[16];
};

/* Makes an identity of 48 random bytes: secret key 32, instance id 16. Returns 0,
 * or -EINVAL should libsodium refuse the key; X25519 has none to refuse. */
int ns_auth_identity(struct ns_identity *out, const uint8_t random[48]);

/* What two processes have agreed upon. Worth keeping: it is the only curve
 * arithmetic there is after ns_auth_identity. */
struct ns_master {
    uint8_t key[32];
};

/*
 * The agreement. `secret_key` is one's own, `peer_key` the peer's public key;
 * `client_key` and `server_key` are both public keys by role, the same on either
 * side. `psk` is a pre-shared key of `psk_bytes` bytes, or NULL and 0 for none.
 * Returns 0; -EBADMSG when the peer's key is of low order, so that the secret
 * would be no secret (RFC 7748, 6.1); -EINVAL when psk_bytes does not fit: over
 * NS_PSK_BYTES_MAX, or not 0 without a psk. On error `*out` is zero.
 */
int ns_auth_master(struct ns_master *out, const uint8_t secret_key[32], const uint8_t peer_key[32],
                   const uint8_t client_key[32], const uint8_t server_key[32], const uint8_t *psk,
                   size_t psk_bytes);

/*
 * What a server tells everybody of its pre-shared key, so that a client with
 * another key, or none, knows before it offers a session. 0 for none. 16 bits: a
 * mistake shows, and a guess at the key is not confirmed. It proves nothing; the
 * tags do. `instance` and `server_key` are the server's.
 */
uint16_t ns_auth_key_check(const uint8_t *psk, size_t psk_bytes, const uint8_t instance[16],
                           const uint8_t server_key[32]);

/* One key a direction, so that no packet can be sent back to who made it. */
struct ns_session_keys {
    uint8_t c2s[32];
    uint8_t s2c[32];
};

/* The keys of one session. `instance` is the server's, `version` the protocol's. */
void ns_auth_session_keys(struct ns_session_keys *out, const struct ns_master *master,
                          const uint8_t session_id[16], const uint8_t instance[16], uint8_t version);

/*
 * The tag of a packet of `packet_bytes` bytes, its last NS_TAG_BYTES being the
 * tag's place: covers `nonce` (the peer's, or NULL where the protocol has none)
 * and packet[0 .. packet_bytes - 16). `packet_bytes` is at least NS_TAG_BYTES.
 * `tag` may be that place itself.
 */
void ns_auth_tag(uint8_t tag[NS_TAG_BYTES], const uint8_t key[32], const uint8_t nonce[16],
                 const uint8_t *packet, size_t packet_bytes);

/* Writes the tag in its place, the packet's last NS_TAG_BYTES bytes. */
void ns_auth_sign(uint8_t *packet, size_t packet_bytes, const uint8_t key[32], const uint8_t nonce[16]);

/* Whether the packet ends in its tag, in time that does not depend on where it
 * differs. False for a packet too short to have one. */
bool ns_auth_verify(const uint8_t key[32], const uint8_t nonce[16], const uint8_t *packet,
                    size_t packet_bytes);

#endif
