//! `ServiceAccountService`: accounts and their keys.

use sluice_proto::admin::v1::service_account_service_server::ServiceAccountService;
use sluice_proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateServiceAccountRequest, DeleteServiceAccountRequest, GetApiKeyRequest,
    GetServiceAccountRequest, ListApiKeysRequest, ListApiKeysResponse, ListServiceAccountsRequest,
    ListServiceAccountsResponse, RevokeApiKeyRequest, ServiceAccount, UpdateServiceAccountRequest,
};
use sluice_types::{Error, ResourceName};
use tonic::{Request, Response, Status};

use super::Api;
use super::reads::Page;
use crate::changes::{account, key};
use crate::domain::{fields, present};
use crate::store::account::{Account, account_by_id, account_list};
use crate::store::key::{KeyRow, key_get, key_list};

#[tonic::async_trait]
impl ServiceAccountService for Api {
    async fn create_service_account(
        &self,
        request: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<ServiceAccount>, Status> {
        self.changed(request, account::create).await
    }

    async fn get_service_account(
        &self,
        request: Request<GetServiceAccountRequest>,
    ) -> Result<Response<ServiceAccount>, Status> {
        self.looked(
            request,
            |request| fields::named("name", &request.name, ResourceName::parse_account),
            |txn, request, id| {
                Box::pin(async move {
                    let account = account_by_id(txn.tx(), &id).await?;
                    Ok(present::account(&account.ok_or_else(|| Error::not_found(&request.name))?))
                })
            },
        )
        .await
    }

    async fn list_service_accounts(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        self.looked(
            request,
            |_| Ok(()),
            |txn, request, ()| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, String::new())?;
                    let after = page.after.clone().unwrap_or_default();
                    let rows = account_list(txn.tx(), &after, page.limit()).await?;
                    let key = |account: &Account| account.row.id.clone();
                    let (service_accounts, next_page_token) = page.finish(txn, &rows, key, present::account);
                    Ok(ListServiceAccountsResponse { service_accounts, next_page_token })
                })
            },
        )
        .await
    }

    async fn update_service_account(
        &self,
        request: Request<UpdateServiceAccountRequest>,
    ) -> Result<Response<ServiceAccount>, Status> {
        self.changed(request, account::update).await
    }

    async fn delete_service_account(
        &self,
        request: Request<DeleteServiceAccountRequest>,
    ) -> Result<Response<ServiceAccount>, Status> {
        self.changed(request, account::delete).await
    }

    async fn create_api_key(&self, request: Request<CreateApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        self.changed(request, key::create).await
    }

    async fn get_api_key(&self, request: Request<GetApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        self.looked(
            request,
            |request| key::parse_name(&request.name),
            |txn, request, (account_id, uid)| {
                Box::pin(async move {
                    let not_found = || Error::not_found(&request.name);
                    let account = account_by_id(txn.tx(), &account_id).await?.ok_or_else(not_found)?;
                    let uid = uid.ok_or_else(not_found)?;
                    let row = key_get(txn.tx(), account.row.uid(), uid).await?.ok_or_else(not_found)?;
                    Ok(present::key(&account.row.id, &row))
                })
            },
        )
        .await
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        self.looked(
            request,
            |request| fields::named("parent", &request.parent, ResourceName::parse_account),
            |txn, request, id| {
                Box::pin(async move {
                    let page = Page::begin(txn, request.page_size, &request.page_token, request.parent.clone())?;
                    let account = account_by_id(txn.tx(), &id).await?;
                    let account = account.ok_or_else(|| Error::not_found(&request.parent))?;
                    let after = page.after.as_ref().and_then(|after| after.parse().ok());
                    let rows = key_list(txn.tx(), account.row.uid(), after, page.limit()).await?;
                    let show = |row: &KeyRow| present::key(&account.row.id, row);
                    let (api_keys, next_page_token) = page.finish(txn, &rows, |row| row.uid().to_string(), show);
                    Ok(ListApiKeysResponse { api_keys, next_page_token })
                })
            },
        )
        .await
    }

    async fn revoke_api_key(&self, request: Request<RevokeApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        self.changed(request, key::revoke).await
    }
}
