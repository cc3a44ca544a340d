// Package serviceaccount issues and checks the JSON Web Tokens of
// ServiceAccounts.
//
// An [Issuer] signs them with the key of --service-account-signing-key-file; a
// [TokenREST] is the serviceaccounts/token subresource that hands them out. A
// bound token names its ServiceAccount and, if it was asked to, a Pod, a Node or
// a Secret; [NewAuthenticator] accepts it for as long as it has not expired and
// all of these still exist with the same UID. [NewLegacyAuthenticator] accepts
// the tokens that live in Secrets. A [Discovery] publishes the keys that others
// need to check the tokens themselves.
package serviceaccount
